"""`make bench`: everything in one go, on one machine, with the same model files.

    python -m loadtest.bench [--quick] [--models relevance,harmless] [--peers infinity]

A full run writes `loadtest/results/latest.json`, the chart beside it and the
figures in `loadtest/README.md`; a quick one writes below `.karat/loadtest`.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from loadtest import chart, environment, machine, report, scenarios, targets, workload
from loadtest.generator import Generator

SCRATCH = Path(".karat/loadtest")
CACHE = Path(".karat/packages")
# Ends any one measurement that hangs.
AT_MOST_SECONDS = 300.0


def bench_of(
    arguments: argparse.Namespace, name: str, size: scenarios.Size, say: Callable[[str], None], peer: Path | None = None
) -> scenarios.Bench:
    """What a model is measured with, by the command line's repository, server and generator."""
    model = arguments.repository / name
    return scenarios.Bench(
        model=model,
        karat=arguments.server.absolute(),
        workloads=workload.make(model, size.samples, CACHE, SCRATCH / "workloads"),
        generator=Generator(arguments.generator.absolute(), AT_MOST_SECONDS),
        size=size,
        scratch=SCRATCH,
        infinity=peer,
        say=say,
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """All models, and what they were measured on."""
    size = scenarios.QUICK if arguments.quick else scenarios.FULL
    began = time.monotonic()

    def say(model: str, text: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {model}: {text}", flush=True)

    results: dict[str, Any] = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": arguments.quick,
        "rounds": size.rounds,
        **machine.describe(arguments.server),
        "models": {},
    }
    peer = environment.install("infinity", SCRATCH) if "infinity" in arguments.peers else None
    for name in arguments.models:
        say(name, "making the workload")
        bench = bench_of(arguments, name, size, partial(say, name), peer)
        measured = scenarios.measure(bench)
        measured["targets"] = [target.as_json() for target in targets.of_model(name, measured)]
        results["models"][name] = measured
    results["seconds"] = time.monotonic() - began
    return results


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Measure karat beside its peers.")
    parser.add_argument("--quick", action="store_true", help="a few minutes, one round")
    parser.add_argument("--models", type=_names, default=["relevance", "harmless"])
    parser.add_argument("--peers", type=_names, default=[], help="infinity, fetched on demand")
    parser.add_argument("--repository", type=Path, default=Path("models"))
    parser.add_argument("--server", type=Path, default=Path("target/release/karat"))
    parser.add_argument("--generator", type=Path, default=Path("target/release/examples/loadtest"))
    arguments = parser.parse_args()

    # So that every server is stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    results = run(arguments)
    folder = SCRATCH if arguments.quick else report.LATEST.parent
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ("quick.json" if arguments.quick else report.LATEST.name)
    path.write_text(json.dumps(results, indent=1) + "\n")
    chart.draw(results, folder / "chart.svg")
    if not arguments.quick:
        report.update_readme(results, report.README)
    report.print_tables(results)
    print(f"\nwritten: {path}, {folder / 'chart.svg'}")


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


if __name__ == "__main__":
    main()
