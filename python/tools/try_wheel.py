"""Tries karat's wheel as a newcomer would: a fresh environment, `pip install`, a checkpoint, a score.

Prints how long each step took. pip takes ONNX Runtime from its index; nothing else of this project is in the
environment. `--cuda` looks instead at what the extra `cuda` would install, which is some gigabytes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from tools.server_process import ServerProcess

CHECKPOINT = Path("tests/checkpoints/openrlhf")
REQUEST = {"model": "openrlhf", "inputs": [{"prompt": "May I?", "response": "Please do."}]}


def newest(folder: Path) -> Path:
    """The wheel that was built last."""
    wheels = sorted(folder.glob("karat-*.whl"), key=lambda wheel: wheel.stat().st_mtime)
    if not wheels:
        raise SystemExit(f"{folder} holds no wheel of karat; run `make wheel`")
    return wheels[-1]


def resolve_cuda(wheel: Path) -> None:
    """Lets pip say which packages the extra `cuda` needs, without installing any."""
    with tempfile.TemporaryDirectory() as scratch:
        environment = Path(scratch) / "environment"
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        dry: list[str | Path] = [environment / "bin/pip", "install", "--quiet", "--dry-run", "--report", "-"]
        dry += ["--disable-pip-version-check", f"karat[cuda] @ {wheel.resolve().as_uri()}"]
        report = json.loads(subprocess.run(dry, check=True, capture_output=True).stdout)
    packages = sorted(f"{entry['metadata']['name']} {entry['metadata']['version']}" for entry in report["install"])
    print(f"karat[cuda] is {len(packages)} packages: {', '.join(packages)}")


def score(wheel: Path) -> None:
    """Installs the wheel, serves a checkpoint, scores, and says how long each step took."""
    # What the environment says of libraries would hide that karat finds its own.
    for variable in ("KARAT_ONNXRUNTIME", "ORT_DYLIB_PATH", "PYTHONPATH", "VIRTUAL_ENV"):
        os.environ.pop(variable, None)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        environment = Path(scratch) / "environment"
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        pip: list[str | Path] = [environment / "bin/pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, wheel, Path("python/client").resolve()], check=True)
        print(f"{wheel.name}, {wheel.stat().st_size / 2**20:.1f} MiB: installed after {time.monotonic() - began:.1f} s")
        program = environment / "bin/karat"
        doctor = subprocess.run([program, "doctor", "--json"], check=True, capture_output=True, cwd=scratch)
        library = json.loads(doctor.stdout)["onnxruntime"]["path"]
        if not library or not Path(library).is_relative_to(environment.resolve()):
            raise SystemExit(f"karat took {library}, not the library of its own environment")
        models = Path(scratch) / "models"
        models.mkdir()
        (models / CHECKPOINT.name).symlink_to(CHECKPOINT.resolve())
        with ServerProcess(program, models) as server:
            request = urllib.request.Request(f"{server.url}/v1/score", json.dumps(REQUEST).encode())  # noqa: S310
            with urllib.request.urlopen(request, timeout=60) as reply:  # noqa: S310 - a server that was started here
                reward = json.load(reply)["results"][0]["reward"]
            print(f"first score after {time.monotonic() - began:.1f} s: {reward:.4f}")


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Install karat's wheel into a fresh environment and score with it.")
    parser.add_argument("--wheels", type=Path, default=Path("target/wheels"))
    parser.add_argument("--cuda", action="store_true", help="resolve the extra cuda instead, and install nothing")
    arguments = parser.parse_args()
    wheel = newest(arguments.wheels)
    if arguments.cuda:
        resolve_cuda(wheel)
    else:
        score(wheel)


if __name__ == "__main__":
    main()
