"""Times what a newcomer waits for between `git clone` and the end of `make demo`.

The clone is of this repository's last commit, with nothing built in it. What cargo and pip have in their own caches
they take from there: a machine that has neither waits for its network as well.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Clone this repository, run make demo, print how long that took.")
    parser.add_argument("--target", default="demo", help="another target of make's")
    arguments = parser.parse_args()
    # Where a library or a build lies already is nothing that a newcomer knows.
    for variable in ("KARAT_ONNXRUNTIME", "ORT_DYLIB_PATH", "CARGO_TARGET_DIR", "VIRTUAL_ENV"):
        os.environ.pop(variable, None)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        clone = Path(scratch) / "karat"
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", Path.cwd(), clone], check=True)  # noqa: S607
        cloned = time.monotonic()
        subprocess.run(["make", "--no-print-directory", arguments.target], cwd=clone, check=True)  # noqa: S607
        ended = time.monotonic()
    took = f"clone {cloned - began:.0f} s, make {arguments.target} {ended - cloned:.0f} s"
    print(f"{took}: {(ended - began) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
