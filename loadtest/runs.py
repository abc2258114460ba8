"""What a run's statistics take from the throughput of known scores in batches of 32, over HTTP.

    make bench-runs
    make bench-runs COUNT=1
    .venv/bin/python -m loadtest.runs --pairs 60

One server is asked for the same known scores by turns without a run and in one, in steps of 1,024 samples. Of each pair
of blocks, in alternating order, the requests a second are compared, and those a second of the server's processor time,
with which everything that the block left to be recorded is paid. Told is the median of the pairs' ratios, and their
middle half. The model is a graph of one sum, which known scores don't ask. Needs a quiet machine.

`--count` counts instructions in place of time, with Valgrind, on any machine: of one client's requests, without a run
and in one, with everything that they left to be recorded. The kernel's part isn't counted. A server is some fifty times
slower under Valgrind, and what gathers within the recorder's 50 milliseconds so much less: the thread that folds it in
wakes for a few requests where at the full rate it folds hundreds. So what that thread executes is told apart, and is
the most that folding takes; `cargo bench --bench runs -- count` counts it with as many folded together as gather at the
full rate.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from loadtest import wire
from loadtest.generator import Generator, Report
from loadtest.guard import quarters
from loadtest.instructions import Instructions
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
# The thread that folds what requests left into its runs.
FOLDING = "karat-runs"
WORDS = ["reward", "model", "the", "answer", "tides", "because", "moon", "gravity", "water", "question"]


@dataclass(frozen=True)
class Figures:
    """What one block of requests came to."""

    per_second: float
    per_processor_second: float


def run(first_step: int, *, in_run: bool) -> dict[str, str | int | bool]:
    """How a block's requests name their run, or have as many spaces in its place, so that all bodies are as long."""
    blank: dict[str, str | int | bool] = {} if in_run else {"blank": True}
    return {"run": RUN, "first_step": first_step, "step_requests": STEP_REQUESTS, **blank}


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
        before = process_seconds(self.server.process)
        report = self.generator.closed(
            self.server, self.workload, self.clients, batch=BATCH, seconds=self.seconds, **run(self.step, in_run=in_run)
        )
        # Whoever reads of runs is told of all that was left to be recorded: what that takes is this block's.
        wire.get(self.server.url, "/v1/runs")
        used = process_seconds(self.server.process) - before
        answered(report)
        if in_run:
            self.step += report["requests"] // STEP_REQUESTS + 1
            self.samples += report["samples"]
        return Figures(report["requests"] / report["seconds"], report["requests"] / used)

    def check(self) -> None:
        """Raises SystemExit where statistics miss a sample: what is left out costs nothing."""
        told = json.loads(wire.get(self.server.url, f"/v1/runs/{RUN}"))["samples"]
        if told != self.samples:
            raise SystemExit(f"the run has statistics of {told} samples, of {self.samples} that were scored")


def answered(report: Report) -> None:
    """Raises SystemExit when a request wasn't answered."""
    if report["broken"] or set(report["statuses"]) != {"200"}:
        raise SystemExit(f"requests were not answered: {report['statuses']}, {report['broken']} broken")


def write_workload(path: Path, times: int = 1) -> Workload:
    """Samples that nearly all have scores of their own, all of them so many times."""
    chance = random.Random(1)

    def text(words: int) -> str:
        return " ".join([*chance.choices(WORDS, k=words - 1), str(chance.randrange(10, 300))])

    def sample(number: int) -> str:
        texts = {"prompt": text(PROMPT_WORDS), "response": text(RESPONSE_WORDS)}
        return json.dumps({**texts, "group": number, "ids": [0], "type_ids": [0]}) + "\n"

    path.write_text("".join(sample(number) for number in range(SAMPLES)) * times)
    return Workload(path, [])


@dataclass
class Counted:
    """A server that Valgrind runs, and how far its run has come."""

    server: Server
    generator: Generator
    workload: Workload
    instructions: Instructions
    requests: int
    step: int = 0

    def block(self, *, in_run: bool) -> Counter[str]:
        """Asks for known scores; by thread, what a request executes."""
        self.instructions.since_last(self.server.process)
        report = self.generator.closed(self.server, self.workload, 1, batch=BATCH, **run(self.step, in_run=in_run))
        wire.get(self.server.url, "/v1/runs")
        executed = self.instructions.since_last(self.server.process)
        answered(report)
        if report["requests"] != self.requests:
            raise SystemExit(f"{report['requests']} requests were sent, of {self.requests}")
        self.step += self.requests // STEP_REQUESTS if in_run else 0
        return executed


def count(executable: Path, generator: Generator, folder: Path, steps: int) -> None:
    """Prints what a request executes without a run, and what a run adds to it."""
    workload = write_workload(folder / "workload.jsonl", steps)
    instructions = Instructions(folder / "instructions")
    # What is measured under Valgrind says nothing of the machine.
    flags, under = ("--calibration-seconds", "0"), instructions.command
    with karat(executable, folder / "models", MODEL, folder / "logs", *flags, under=under) as server:
        counted = Counted(server, generator, workload, instructions, steps * STEP_REQUESTS)
        # Everything is known and warm before anything counts.
        for in_run in (False, True):
            counted.block(in_run=in_run)
        without, within = (counted.block(in_run=in_run) for in_run in (False, True))
    within.subtract(without)
    request, folding = without.total() / counted.requests, within.pop(FOLDING, 0) / counted.requests
    answering = within.total() / counted.requests
    print(
        f"{counted.requests} requests; instructions of one: {request:,.0f}; a run adds {answering + folding:,.0f} "
        f"({(answering + folding) / request:.2%}): {answering:,.0f} ({answering / request:.2%}) in the threads that "
        f"answer, {folding:,.0f} ({folding / request:.2%}) in the one that folds few at a time"
    )


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
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument(
        "--seconds", type=float, default=0.4, help="how long a block is: machines change their speed within seconds"
    )
    parser.add_argument("--count", action="store_true", help="count instructions, with Valgrind")
    parser.add_argument("--steps", type=int, default=64, help="how many steps are counted")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_tiny(folder / "models" / MODEL)
        if arguments.count:
            count(arguments.server, Generator(arguments.generator, at_most=3600), folder, arguments.steps)
            return
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
