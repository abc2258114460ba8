"""Runs a Python script against a server with the demo models: with_server PYTHON SCRIPT, which is given its address."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tools.server_process import ServerProcess


def main() -> None:
    """Runs the command line."""
    python, script = sys.argv[1:]
    environment = {**os.environ, "PYTHONPATH": "python/client/src"}
    with ServerProcess(Path("target/release/karat"), Path("models")) as server:
        raise SystemExit(subprocess.run([python, script, server.url], env=environment, check=False).returncode)


if __name__ == "__main__":
    main()
