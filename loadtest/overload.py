"""What a server with its default settings still answers in time when four times as much is asked as it can compute.

    .venv/bin/python -m loadtest.overload --server target/release/karat --generator target/release/examples/loadtest

Requests carry no timeout: nothing but the server's own bound on the wait keeps replies early. What is wanted: at least
0.8 of what 64 clients in turn reach is answered within two seconds, and every request is answered or refused.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from loadtest import servers, workload
from loadtest.generator import Generator
from loadtest.scenarios import settle

GOOD_WITHIN_MS = 2000
LEAST = 0.8
CLIENTS = 64
# So many that none comes again while it still waits, when it would be computed once for both.
SAMPLES = 1024
SCRATCH = Path(".karat/loadtest")
PACKAGES = Path(".karat/packages")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The capacity, and what became of the requests at a multiple of it."""
    samples = workload.make(arguments.models / arguments.model, SAMPLES, PACKAGES, SCRATCH / "workloads").mixed
    generator = Generator(arguments.generator.absolute(), 10 * arguments.seconds + 60)
    # Nothing is known beforehand: each sample is computed.
    flags = ("--cache-mb", "0")
    with servers.karat(arguments.server, arguments.models, arguments.model, SCRATCH, *flags, bounded=True) as server:
        peak = generator.closed(server, samples, CLIENTS, samples=SAMPLES // 4)
        settle(server)
        report = generator.open(
            server,
            samples,
            rate=arguments.load * peak["samples_per_second"],
            seconds=arguments.seconds,
            good_within_ms=GOOD_WITHIN_MS,
        )
    return {
        "capacity_tokens_per_second": peak["tokens_per_second"],
        "good_tokens_per_second": report["good_tokens_per_second"],
        "goodput": report["good_tokens_per_second"] / peak["tokens_per_second"],
        **{key: report[key] for key in ("statuses", "broken", "latency_ms", "refusal_ms")},
    }


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Measure goodput at a multiple of the capacity.")
    parser.add_argument("--server", type=Path, default=Path("target/release/karat"))
    parser.add_argument("--generator", type=Path, default=Path("target/release/examples/loadtest"))
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--model", default="relevance")
    parser.add_argument("--load", type=float, default=4.0, help="as a multiple of the capacity")
    parser.add_argument("--seconds", type=float, default=20.0)
    report = measure(parser.parse_args())
    print(json.dumps(report, indent=2))
    other = {status: count for status, count in report["statuses"].items() if status not in ("200", "429")}
    if other or report["broken"] or report["goodput"] < LEAST:
        sys.exit(f"wanted: a goodput of {LEAST} at least, each request answered with 200 or 429, none broken off")


if __name__ == "__main__":
    main()
