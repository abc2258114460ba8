"""`make bench-beside`: what scoring and writing critiques leave of each other on the same cores.

    python -m loadtest.beside [--rounds 3] [--seconds 10] [--writer critic] [--scorer smol-reward]

One server holds both models. Clients score samples that nobody has sent before, each behind a prompt of its own; others
have the writer answer at length. Every round measures both alone and both together, one after another, by how many
samples were answered and how many tokens the server says that it has written meanwhile. A figure is the median over the
rounds, a ratio the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from karat_client import Client
from loadtest import wire
from loadtest.decoder import WORDS
from loadtest.generation import SPLIT, asking_plainly, question
from loadtest.repository import on_provider
from loadtest.servers import wait_until_calibrated
from tools.server_process import ServerProcess

SCRATCH = Path(".karat/loadtest")
# Before anything is counted, so that every client waits for its second answer or a later one.
SETTLE_SECONDS = 3.0
PROMPT_WORDS = 96
RESPONSE_WORDS = 48
AT_LEAST = 0.45


@dataclass
class Clients:
    """Clients that each ask again as soon as they are answered, while told to."""

    count: int
    ask: Callable[[int], None]
    numbers: Iterator[int] = field(default_factory=itertools.count)
    answered: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Lets them ask for the length of the block, and waits for the last answers after it."""
        stop = threading.Event()

        def run() -> None:
            while not stop.is_set():
                with self.lock:
                    number = next(self.numbers)
                self.ask(number)
                with self.lock:
                    self.answered += 1

        threads = [threading.Thread(target=run) for _ in range(self.count)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def words(seed: int, count: int) -> str:
    """A text of so many words that no other seed begins with."""
    digits = (WORDS[seed // len(WORDS) ** place % len(WORDS)] for place in range(4))
    rest = (WORDS[(seed * 7 + at * 13) % len(WORDS)] for at in range(count - 4))
    return " ".join(itertools.chain(digits, rest))


def written(url: str, model: str) -> float:
    """How many tokens a model has written so far."""
    counted = re.search(
        rf'^karat_generated_tokens_total\{{model="{re.escape(model)}"\}} (\S+)$',
        wire.get(url, "/metrics").decode(),
        re.MULTILINE,
    )
    return float(counted[1]) if counted else 0.0


@dataclass
class Bench:
    """A server with both models."""

    url: str
    scoring: Clients
    writing: Clients
    writer: str
    seconds: float

    def measure(self, *clients: Clients) -> tuple[float, float]:
        """Samples and tokens a second while these clients ask."""
        with ExitStack() as running:
            for group in clients:
                running.enter_context(group.running())
            time.sleep(SETTLE_SECONDS)
            answered, tokens, started = self.scoring.answered, written(self.url, self.writer), time.monotonic()
            time.sleep(self.seconds)
            seconds = time.monotonic() - started
            return (
                (self.scoring.answered - answered) / seconds,
                (written(self.url, self.writer) - tokens) / seconds,
            )


def rounds_of(bench: Bench, rounds: int) -> list[dict[str, float]]:
    """What each round gave."""
    results = []
    for _ in range(rounds):
        scores_alone, _ = bench.measure(bench.scoring)
        _, tokens_alone = bench.measure(bench.writing)
        scores, tokens = bench.measure(bench.scoring, bench.writing)
        results.append(
            {
                "scores_alone": scores_alone,
                "scores_beside": scores,
                "tokens_alone": tokens_alone,
                "tokens_beside": tokens,
                "scores_ratio": scores / scores_alone,
                "tokens_ratio": tokens / tokens_alone,
            }
        )
        print(json.dumps({name: round(value, 2) for name, value in results[-1].items()}), flush=True)
    return results


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Measure scores and critiques on the same cores.")
    parser.add_argument("--server", type=Path, default=Path("target/release/karat"))
    parser.add_argument("--repository", type=Path, default=Path("models/decoders"))
    parser.add_argument("--writer", default="critic", help="the model that writes")
    parser.add_argument("--scorer", default="smol-reward", help="the model that scores")
    parser.add_argument("--scorer-repository", type=Path, default=None, help="where the scorer is, if elsewhere")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=4, help="how many score")
    parser.add_argument("--critiques", type=int, default=8, help="how many are written at once")
    parser.add_argument("--output", type=Path, default=SCRATCH / "beside.json")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        SCRATCH.mkdir(parents=True, exist_ok=True)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=SCRATCH)))
        asking_plainly(arguments.repository / arguments.writer, scratch / arguments.writer)
        if arguments.scorer != arguments.writer:
            repository = arguments.scorer_repository or arguments.repository
            on_provider(repository / arguments.scorer, scratch / arguments.scorer, "cpu")
        server = stack.enter_context(ServerProcess(arguments.server, scratch, "--cache-mb", "0", "--log", "warn"))
        wait_until_calibrated(server.url)
        scorer, writer = Client(server.url, arguments.scorer), Client(server.url, arguments.writer)

        def score(number: int) -> None:
            scorer.score(prompts=[words(2 * number, PROMPT_WORDS)], responses=[words(2 * number + 1, RESPONSE_WORDS)])

        def critique(number: int) -> None:
            beginning, end = question(number).split(SPLIT)
            writer.critique(beginning, end, score=False)

        bench = Bench(
            server.url,
            Clients(arguments.clients, score),
            Clients(arguments.critiques, critique),
            arguments.writer,
            arguments.seconds,
        )
        results = rounds_of(bench, arguments.rounds)
    median = {name: statistics.median(result[name] for result in results) for name in results[0]}
    print(f"\n| | alone | beside | ratio | at least |\n|{'---|' * 5}")
    for name, what in (
        ("scores", "scores a second"),
        ("tokens", f"tokens a second of {arguments.critiques} critiques"),
    ):
        alone, beside, ratio = (median[f"{name}_{part}"] for part in ("alone", "beside", "ratio"))
        print(f"| {what} | {alone:.1f} | {beside:.1f} | {ratio:.2f} | {AT_LEAST} |")
    arguments.output.write_text(json.dumps({"median": median, "rounds": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
