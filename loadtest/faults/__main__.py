"""Does one fault after another to a server, and tells what was found.

    make faults
    .venv/bin/python -m loadtest.faults --server target/debug/karat --only torn,full --times 3

Prints a line for each: what was done and found, or why it was skipped. Fails when a server did what it must not do.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from loadtest.faults import clock, disk, files, kills, replicas
from loadtest.faults.ground import Broken, Ground, Skipped

FAULTS = [*kills.FAULTS, *files.FAULTS, *disk.FAULTS, *clock.FAULTS, *replicas.FAULTS]


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", type=Path, default=Path("target/release/karat"), help="the executable")
    parser.add_argument(
        "--only", default="", help="words, separated by commas, of which a fault's name has to hold one"
    )
    parser.add_argument("--times", type=int, default=10, help="how often to kill at random moments, of each kind")
    arguments = parser.parse_args()
    words = [word for word in arguments.only.split(",") if word]
    broken = 0
    for fault in FAULTS:
        if words and not any(word in fault.name for word in words):
            continue
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                told = f"ok: {fault.run(Ground(arguments.server.absolute(), Path(folder), arguments.times))}"
            except Skipped as reason:
                told = f"skipped: {reason}"
            except Broken as found:
                told = f"BROKEN: {found}"
                broken += 1
        print(f"{fault.name} ({time.monotonic() - begun:.0f} s)\n  {told}", flush=True)
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
