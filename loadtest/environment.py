"""Virtual environments of other servers, fetched only when they are asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PEERS = Path(__file__).parent / "peers"


def install(peer: str, cache: Path, folder: Path) -> Path:
    """The environment that `peers/PEER-requirements.txt` describes, made once in `folder`; returns its Python.

    Raises SystemExit where it can't be made.
    """
    environment = folder / f"{peer}-venv"
    complete = environment / "complete"
    if not complete.exists():
        command = [sys.executable, "-m", "models.tools.virtual_environment"]
        command += ["--requirements", str(PEERS / f"{peer}-requirements.txt")]
        command += ["--output", str(environment), "--cache", str(cache)]
        if subprocess.run(command, check=False).returncode != 0:
            raise SystemExit(f"{peer} could not be installed; run without PEERS={peer}")
        complete.touch()
    return environment / "bin" / "python"
