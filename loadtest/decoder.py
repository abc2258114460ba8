"""`make bench-decoder`: what sharing a prompt among its candidates saves, over HTTP.

    python -m loadtest.decoder [--quick] [--repository .karat/loadtest/llama] [--model llama-shared]
        [--five llama-five] [--provider cuda --onnxruntime FILE]

Each figure is the median of a few rounds with fresh prompts. *Unshared* is the
time that as many samples of the same lengths take when each has a prompt of its
own, on the same model; it grows with the number of samples, so a few are
measured and the rest reckoned. The bound is N(P+S)/(P+N·S), the tokens saved.
Results are written to `.karat/loadtest/decoder-MODEL.json`, or where `--output` says. Only the standard library is
needed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loadtest import machine, wire
from loadtest.repository import on_provider
from tools.server_process import ServerProcess

SCRATCH = Path(".karat/loadtest")
# Prompt tokens, candidates, tokens of each candidate.
GRID = [
    (128, 4, 32),
    (512, 4, 128),
    (512, 16, 32),
    (512, 16, 128),
    (1024, 8, 32),
    (1024, 16, 32),
    (1024, 16, 128),
    (1024, 64, 32),
    (1024, 64, 128),
]
# Where sharing saves little or nothing, and must cost nothing either.
HARDLY = [(1024, 1, 32), (16, 4, 32), (32, 2, 256), (16, 1, 32)]
QUICK = [(512, 16, 32), (1024, 16, 32)]
# How many samples with prompts of their own are timed, at most.
UNSHARED_SAMPLES = 4
# Within how many seconds single requests arrive.
ARRIVAL = 0.02
# Words that are one token each in the vocabularies of most language models.
WORDS = [
    "time",
    "people",
    "year",
    "way",
    "day",
    "man",
    "thing",
    "woman",
    "life",
    "child",
    "world",
    "school",
    "state",
    "family",
    "group",
    "country",
    "hand",
    "part",
    "place",
    "case",
    "week",
    "company",
    "system",
    "program",
    "question",
    "work",
    "government",
    "number",
    "night",
    "point",
    "home",
    "water",
    "room",
    "mother",
    "area",
    "money",
    "story",
    "fact",
    "month",
    "lot",
    "right",
    "study",
    "book",
    "eye",
    "job",
    "word",
    "business",
    "issue",
    "side",
    "kind",
    "head",
    "house",
    "service",
    "friend",
    "father",
    "power",
    "hour",
    "game",
    "line",
    "end",
    "member",
    "law",
    "car",
    "city",
    "name",
    "team",
    "minute",
    "idea",
    "body",
    "back",
    "face",
    "level",
    "office",
    "door",
    "health",
    "person",
    "art",
    "war",
    "history",
    "party",
    "result",
    "change",
    "morning",
    "reason",
    "research",
    "girl",
    "moment",
    "air",
    "force",
]


@dataclass
class Row:
    """One shape, as measured."""

    prompt: int
    candidates: int
    response: int
    seconds: float
    unshared_seconds: float
    cached_seconds: float
    singles_seconds: float

    @property
    def bound(self) -> float:
        """How many times fewer tokens are computed."""
        alone = self.candidates * (self.prompt + self.response)
        return alone / (self.prompt + self.candidates * self.response)

    @property
    def speedup(self) -> float:
        """Against prompts of their own."""
        return self.unshared_seconds / self.seconds

    def as_markdown(self) -> str:
        """A line of the table."""
        shape = f"| {self.prompt} | {self.candidates} | {self.response} "
        return shape + (
            f"| {self.seconds:.2f} s | {self.speedup:.2f} | {self.bound:.2f} | {self.speedup / self.bound:.2f} "
            f"| {self.unshared_seconds / self.cached_seconds:.1f} | {self.seconds / self.singles_seconds:.2f} |"
        )


HEADER = """\
| prompt | N | response | group | speed-up | bound | share of the bound | prompt cached | singles ÷ group |
|---|---|---|---|---|---|---|---|---|"""


class Texts:
    """Texts of a given number of tokens that never come twice."""

    def __init__(self, random_words: bool, seed: int) -> None:
        self._generator = random.Random(seed)
        self._random_words = random_words

    def text(self, tokens: int) -> str:
        """As many words."""
        if self._random_words:
            return " ".join(f"t{self._generator.randrange(1, 32_000)}" for _ in range(tokens))
        return " ".join(self._generator.choice(WORDS) for _ in range(tokens))


def score(url: str, model: str, samples: list[tuple[str, str]]) -> float:
    """Seconds from sending a request to its whole answer."""
    inputs = [{"prompt": prompt, "response": response} for prompt, response in samples]
    started = time.perf_counter()
    reply = wire.post(url, "/v1/score", {"model": model, "inputs": inputs})
    seconds = time.perf_counter() - started
    if len(reply["results"]) != len(samples):
        raise SystemExit(f"{len(reply['results'])} results for {len(samples)} samples")
    return seconds


def singles(url: str, model: str, samples: list[tuple[str, str]]) -> float:
    """Seconds until the last of single requests, sent within a moment, is answered."""
    errors: list[BaseException] = []

    def send(sample: tuple[str, str], delay: float) -> None:
        time.sleep(delay)
        try:
            score(url, model, [sample])
        except (OSError, RuntimeError) as error:
            errors.append(error)

    pause = ARRIVAL / len(samples)
    threads = [threading.Thread(target=send, args=(sample, index * pause)) for index, sample in enumerate(samples)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    if errors:
        raise SystemExit(f"a request failed: {errors[0]}")
    return seconds


def median(rounds: int, measure: Callable[[], float]) -> float:
    """Of a few runs."""
    return statistics.median(measure() for _ in range(rounds))


def measure(url: str, model: str, texts: Texts, shape: tuple[int, int, int], rounds: int) -> Row:
    """One shape."""
    prompt, count, response = shape

    def group(shared: str) -> list[tuple[str, str]]:
        return [(shared, texts.text(response)) for _ in range(count)]

    def unshared() -> float:
        few = min(count, UNSHARED_SAMPLES)
        samples = [(texts.text(prompt), texts.text(response)) for _ in range(few)]
        return score(url, model, samples) * count / few

    fresh, cached = [], []
    for _ in range(rounds):
        shared = texts.text(prompt)
        fresh.append(score(url, model, group(shared)))
        cached.append(score(url, model, group(shared)))
    return Row(
        prompt=prompt,
        candidates=count,
        response=response,
        seconds=statistics.median(fresh),
        cached_seconds=statistics.median(cached),
        unshared_seconds=median(rounds, unshared),
        singles_seconds=median(rounds, lambda: singles(url, model, group(texts.text(prompt)))),
    )


def peak_bytes(pid: int) -> int:
    """The most memory that a process held since its peak was last reset."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def memory(arguments: argparse.Namespace, texts: Texts) -> dict[str, int]:
    """Bytes of the model's weights, of a fresh server that holds nothing else, and the most that the server holds
    while it scores 16 candidates of 128 tokens behind a prompt of 1024."""
    folder = (arguments.repository / arguments.model).resolve()
    with tempfile.TemporaryDirectory() as repository:
        (Path(repository) / arguments.model).symlink_to(folder)
        with ServerProcess(arguments.server, Path(repository), *flags(arguments)) as server:
            ready = machine.resident_bytes(server.pid)
            # Loading held more for a moment; 5 resets the peak to what is held now.
            Path(f"/proc/{server.pid}/clear_refs").write_text("5")
            prompt = texts.text(1024)
            score(server.url, arguments.model, [(prompt, texts.text(128)) for _ in range(16)])
            weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
            return {"weights": weights, "ready": ready, "peak": peak_bytes(server.pid)}


def flags(arguments: argparse.Namespace) -> list[str]:
    """What servers are started with beside their models: all may wait however long, so that a slow machine refuses nothing."""
    library = ["--onnxruntime", str(arguments.onnxruntime)] if arguments.onnxruntime else []
    return ["--queue-seconds", "0", "--dialect-queue-seconds", "0", *library]


def moved(arguments: argparse.Namespace, scratch: Path) -> Path:
    """A repository whose measured models run on the wanted provider."""
    for name in filter(None, [arguments.model, arguments.five]):
        on_provider(arguments.repository / name, scratch / name, arguments.provider)
    return scratch


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Measure what sharing prompts saves.")
    parser.add_argument("--server", type=Path, default=Path("target/release/karat"))
    parser.add_argument("--repository", type=Path, default=SCRATCH / "llama")
    parser.add_argument("--model", default="llama-shared")
    parser.add_argument("--five", default=None, help="the same model with five heads")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shapes", default=None, help="such as 1024x16x32,512x16x32")
    parser.add_argument("--provider", default=None, help="run on this instead of what the manifests say")
    parser.add_argument("--onnxruntime", type=Path, default=None, help="its library")
    parser.add_argument("--output", type=Path, default=None, help="where the results are written")
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=None, help="measure memory alone")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    shapes = QUICK if arguments.quick else GRID + HARDLY
    if arguments.shapes:
        shapes = [_shape(text) for text in arguments.shapes.split(",")]

    with tempfile.TemporaryDirectory() as scratch:
        if arguments.provider:
            arguments.repository = moved(arguments, Path(scratch))
        run(arguments, shapes)


def _shape(text: str) -> tuple[int, int, int]:
    prompt, candidates, response = map(int, text.split("x"))
    return prompt, candidates, response


def run(arguments: argparse.Namespace, shapes: list[tuple[int, int, int]]) -> None:
    """Measures what was asked for, prints it and writes it."""
    texts = Texts(random_words=arguments.model.startswith("llama"), seed=time.time_ns())
    if arguments.memory:
        shapes = []
    results: dict[str, Any] = {"cores": os.cpu_count(), "model": arguments.model, "rows": []}
    with ServerProcess(arguments.server, arguments.repository, *flags(arguments)) as server:
        score(server.url, arguments.model, [(texts.text(1024), texts.text(32))])
        print(HEADER)
        for shape in shapes:
            row = measure(server.url, arguments.model, texts, shape, arguments.rounds)
            results["rows"].append({**asdict(row), "speedup": row.speedup, "bound": row.bound})
            print(row.as_markdown(), flush=True)
        if arguments.five:

            def heads(name: str) -> float:
                return score(server.url, name, [(texts.text(1024), texts.text(32)) for _ in range(4)])

            one, five = [], []
            for _ in range(2 * arguments.rounds):
                one.append(heads(arguments.model))
                five.append(heads(arguments.five))
            results["five_heads_over_one"] = statistics.median(five) / statistics.median(one)
            print(f"5 heads ÷ 1 head: {results['five_heads_over_one']:.3f}")
    if arguments.memory is not False:
        results["memory"] = memory(arguments, texts)
        print("memory: " + ", ".join(f"{what} {size / 1e6:.0f} MB" for what, size in results["memory"].items()))
    output = arguments.output or SCRATCH / f"decoder-{arguments.model}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
