"""What a run's statistics take from the throughput of known scores in batches of 32, over HTTP.

    make bench-runs
    .venv/bin/python -m loadtest.runs --pairs 60

One server is asked for the same known scores by turns without a run and in one, in steps of 1,024 samples. Of each pair
of blocks, in alternating order, the requests a second are compared, and those a second of the server's processor time,
with which everything that the block left to be recorded is paid. Told is the median of the pairs' ratios, and their
middle half. The model is a graph of one sum, which known scores don't ask. Needs a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

from loadtest import wire
from loadtest.generator import Generator
from loadtest.guard import quarters
from loadtest.machine import process_seconds
from loadtest.servers import Server, karat
from loadtest.tiny import write_tiny
from loadtest.workload import Workload

MODEL, RUN = "model", "bench"
BATCH = 32
# As many requests of 32 samples are a step.
STEP_REQUESTS = 32
# As many distinct samples, of so many words each, as long as in the load test's other figures.
SAMPLES, PROMPT_WORDS, RESPONSE_WORDS = 1024, 40, 120
WORDS = ["reward", "model", "the", "answer", "tides", "because", "moon", "gravity", "water", "question"]


@dataclass(frozen=True)
class Figures:
    """What one block of requests came to."""

    per_second: float
    per_processor_second: float


@dataclass
class Asked:
    """A server, who asks it, and how far its run has come."""

    server: Server
    generator: Generator
    workload: Workload
    clients: int
    seconds: float
    step: int = 0
    samples: int = 0

    def block(self, *, in_run: bool) -> Figures:
        """Asks for known scores; raises SystemExit when a request isn't answered."""
        run = {"run": RUN, "first_step": self.step, "step_requests": STEP_REQUESTS} if in_run else {}
        before = process_seconds(self.server.process)
        report = self.generator.closed(
            self.server, self.workload, self.clients, batch=BATCH, seconds=self.seconds, **run
        )
        # Whoever reads of runs is told of all that was left to be recorded: what that takes is this block's.
        wire.get(self.server.url, "/v1/runs")
        used = process_seconds(self.server.process) - before
        if report["broken"] or set(report["statuses"]) != {"200"}:
            raise SystemExit(f"requests were not answered: {report['statuses']}, {report['broken']} broken")
        if in_run:
            self.step += report["requests"] // STEP_REQUESTS + 1
            self.samples += report["samples"]
        return Figures(report["requests"] / report["seconds"], report["requests"] / used)

    def check(self) -> None:
        """Raises SystemExit where statistics miss a sample: what is left out costs nothing."""
        told = json.loads(wire.get(self.server.url, f"/v1/runs/{RUN}"))["samples"]
        if told != self.samples:
            raise SystemExit(f"the run has statistics of {told} samples, of {self.samples} that were scored")


def write_workload(path: Path) -> Workload:
    """Samples that nearly all have scores of their own."""
    chance = random.Random(1)

    def text(words: int) -> str:
        return " ".join([*chance.choices(WORDS, k=words - 1), str(chance.randrange(10, 300))])

    with path.open("w") as lines:
        for number in range(SAMPLES):
            sample = {"prompt": text(PROMPT_WORDS), "response": text(RESPONSE_WORDS), "group": number}
            lines.write(json.dumps({**sample, "ids": [0], "type_ids": [0]}) + "\n")
    return Workload(path, [])


def tell(what: str, unit: str, pairs: list[tuple[float, float]]) -> None:
    """Prints a line of both sides and their ratio."""
    (_, without, _), (_, within, _) = (quarters([pair[side] for pair in pairs]) for side in (0, 1))
    low, middle, high = quarters([100 * (within / without - 1) for without, within in pairs])
    print(
        f"{what}: {without:,.0f} and {within:,.0f} {unit}, "
        f"median of the pairs' ratios {middle:+.2f} % (middle half {low:+.2f} to {high:+.2f} %)"
    )


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", type=Path, default=Path("target/release/karat"), help="the program")
    parser.add_argument("--generator", type=Path, default=Path("target/release/examples/loadtest"))
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long a block is")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_tiny(folder / "models" / MODEL)
        workload = write_workload(folder / "workload.jsonl")
        generator = Generator(arguments.generator, at_most=300)
        with karat(arguments.server, folder / "models", MODEL, folder / "logs") as server:
            asked = Asked(server, generator, workload, arguments.clients, arguments.seconds)
            # Everything is known and warm before anything counts.
            for in_run in (False, True):
                asked.block(in_run=in_run)
            pairs = []
            for number in range(arguments.pairs):
                order = [False, True] if number % 2 == 0 else [True, False]
                found = {in_run: asked.block(in_run=in_run) for in_run in order}
                pairs.append((found[False], found[True]))
            asked.check()
    print(f"{len(pairs)} pairs of {arguments.seconds:g} s, {arguments.clients} clients; without a run and in one")
    tell("throughput", "requests/s", [(one.per_second, other.per_second) for one, other in pairs])
    tell(
        "by processor time",
        "requests/s",
        [(one.per_processor_second, other.per_processor_second) for one, other in pairs],
    )


if __name__ == "__main__":
    main()
