"""Virtual environments of other servers, made only when they are asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def install(peer: str, folder: Path) -> Path:
    """The environment of the project's dependency group `peer-PEER`, in `folder`; returns its Python.

    Raises SystemExit where it can't be made.
    """
    environment = folder / f"{peer}-venv"
    command = ["python/install.sh", str(environment), sys.executable, "--only-group", f"peer-{peer}"]
    if subprocess.run(command, check=False).returncode != 0:
        raise SystemExit(f"{peer} could not be installed: uv's message is above")
    return environment / "bin" / "python"
