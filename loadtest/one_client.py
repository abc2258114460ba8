"""What one client that sends single samples gets of the offline optimum, and what it could get at all.

    make bench-one-client
    .venv/bin/python -m loadtest.one_client --models harmless --rounds 12

Three things compute the same samples in blocks of a few seconds by turns: the best static plan, which knows all of them
beforehand (found as `loadtest.bench` finds it); one session on all cores that passes each alone, one after another
without a pause; and the server, which one client asks for each after the reply to the one before. The second is what
one sample at a time can reach without any server. Each round begins with another of them, and takes the next of the
workload's samples. Told are the ratios of the blocks of a round: their median, and their middle half. A machine whose
speed changes from minute to minute changes all blocks of a round. Needs a quiet machine.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from loadtest import scenarios
from loadtest.bench import SCRATCH, bench_of
from loadtest.generator import Plan, Report
from loadtest.guard import quarters
from loadtest.scenarios import CORES, Bench, Plans
from loadtest.servers import Server
from loadtest.targets import offline_optimum
from loadtest.workload import Workload

BARE, KARAT = "bare", "karat"
ALONE = Plan(sessions=1, threads=CORES, budget=1)
RATIO_AT_LEAST = 0.9
# Beyond so many cores that other programs took, a block says little.
FOREIGN_CORES = 0.05

# What each contender came to in a round.
Round = dict[str, Report]


def block(bench: Bench, plans: Plans, server: Server, samples: Workload) -> dict[str, Callable[[], Report]]:
    """Who computes the samples of a round, by name."""
    generator, graph, count = bench.generator, bench.graph, len(samples.samples)
    return {
        "offline-rust": partial(generator.offline, graph, samples, plans.rust, count),
        BARE: partial(generator.offline, graph, samples, ALONE, count),
        KARAT: partial(generator.closed, server, samples, 1),
        "offline-python": partial(generator.offline_python, graph, samples, plans.python, count),
    }


def measure(bench: Bench, rounds: int, size: int) -> list[Round]:
    """All rounds of one model, with `size` samples a block."""
    bench.make_repository()
    plans = scenarios.sweep(bench)
    parts = bench.workloads.mixed.parts(size)
    results = []
    with bench.start_karat("--cache-mb", "0") as server:
        scenarios.check_agreement(bench, [server])
        for number in range(rounds):
            contenders = list(block(bench, plans, server, parts[number % len(parts)]).items())
            first = number % len(contenders)
            found = {name: run() for name, run in contenders[first:] + contenders[:first]}
            results.append(found)
            speeds = ", ".join(f"{name} {found[name]['tokens_per_second']:,.0f}" for name, _ in contenders)
            bench.say(f"round {number + 1}: {speeds} tokens/s")
    return results


def ratios(rounds: list[Round]) -> dict[str, list[float]]:
    """What is told of a model: by name, a ratio of tokens a second for each round."""

    def speeds(name: str) -> list[float]:
        return [found[name]["tokens_per_second"] for found in rounds]

    middle = {name: {"tokens_per_second": quarters(speeds(name))[1]} for name in rounds[0]}
    optimum = offline_optimum(middle)

    def over(name: str, other: str) -> list[float]:
        return [one / another for one, another in zip(speeds(name), speeds(other), strict=True)]

    return {
        "one client / offline optimum": over(KARAT, optimum),
        "one client / one sample after another without a server": over(KARAT, BARE),
        "one sample after another without a server / offline optimum": over(BARE, optimum),
    }


def tell(model: str, rounds: list[Round]) -> None:
    """Prints a model's rows of the table, and which rounds were disturbed."""
    for number, (what, found) in enumerate(ratios(rounds).items()):
        low, middle, high = quarters(found)
        bound = f"{RATIO_AT_LEAST:.2f}" if number == 0 else ""
        print(f"| {model} | {what} | {middle:.3f} | {low:.3f} to {high:.3f} | {bound} |")


def say(model: str, text: str) -> None:
    """Prints how far a model has come."""
    print(f"{model}: {text}", flush=True)


def disturbed(rounds: list[Round]) -> int:
    """In how many rounds other programs kept cores busy."""
    return sum(any(report["foreign_cores"] > FOREIGN_CORES for report in found.values()) for found in rounds)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=lambda text: text.split(","), default=["relevance", "harmless"])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--samples", type=int, default=64, help="how many a block has, of the 256 of `make bench`")
    parser.add_argument("--repository", type=Path, default=Path("models"))
    parser.add_argument("--server", type=Path, default=Path("target/release/karat"))
    parser.add_argument("--generator", type=Path, default=Path("target/release/examples/loadtest"))
    parser.add_argument("--output", type=Path, default=SCRATCH / "one-client.json")
    arguments = parser.parse_args()
    size = scenarios.FULL
    if not 0 < arguments.samples <= size.samples:
        parser.error(f"--samples must be from 1 to {size.samples}, not {arguments.samples}")
    measured = {}
    for name in arguments.models:
        bench = bench_of(arguments, name, size, partial(say, name))
        measured[name] = measure(bench, arguments.rounds, arguments.samples)
    print(f"\n{arguments.rounds} rounds, {arguments.samples} samples a block, {CORES} cores\n")
    print("| model | tokens a second of | median | middle half | at least |\n|---|---|---|---|---|")
    for name, rounds in measured.items():
        tell(name, rounds)
    for name, rounds in measured.items():
        if count := disturbed(rounds):
            print(f"\n{name}: other programs took more than {FOREIGN_CORES:g} cores in {count} rounds")
    arguments.output.write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
