"""Virtual environments of other servers, made only when they are asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

UV = Path(".karat/uv/bin/uv")


def install(peer: str, folder: Path) -> Path:
    """The environment of the project's dependency group `peer-PEER`, in `folder`; returns its Python.

    Raises SystemExit where it can't be made.
    """
    environment = (folder / f"{peer}-venv").absolute()
    command = [str(UV), "sync", "--project", "python", "--locked", "--only-group", f"peer-{peer}"]
    command += ["--no-python-downloads", "--python", sys.executable]
    variables = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(environment)}
    if subprocess.run(command, check=False, env=variables).returncode != 0:
        raise SystemExit(f"{peer} could not be installed: uv's message is above")
    return environment / "bin" / "python"
