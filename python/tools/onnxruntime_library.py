"""Takes ONNX Runtime's shared libraries out of its Python wheel.

karat loads the library when it starts and needs no Python for it. The wheel is
the one form of ONNX Runtime that every package mirror carries. With `--cuda`
it is the wheel for NVIDIA GPUs, whose providers lie beside the library.
"""

from __future__ import annotations

import argparse
import os
import shutil
import zipfile
from pathlib import Path

from tools.packages import fetch, onnxruntime_for_cuda, onnxruntime_for_this_machine

LIBRARIES = "onnxruntime/capi/"
CORE = "libonnxruntime.so."
PROVIDERS = "libonnxruntime_providers_"


def extract(wheel: Path, output: Path) -> list[Path]:
    """Writes the wheel's library to `output`, under a name without a version, its providers beside it.

    Returns what was written.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = [name.removeprefix(LIBRARIES) for name in archive.namelist()]
        (core,) = [name for name in names if name.startswith(CORE)]
        targets = {core: output}
        targets |= {name: output.with_name(name) for name in names if name.startswith(PROVIDERS)}
        # The core comes last: once it is there, the providers are.
        for name in sorted(targets, key=lambda name: name == core):
            _extract(archive, LIBRARIES + name, targets[name])
    return sorted(targets.values())


def _extract(archive: zipfile.ZipFile, member: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    with archive.open(member) as source, partial.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
    os.replace(partial, target)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Extract ONNX Runtime's shared libraries.")
    parser.add_argument("--cache", type=Path, default=Path(".karat/packages"))
    parser.add_argument("--output", type=Path, required=True, help="the library's new path")
    parser.add_argument("--cuda", action="store_true", help="the build for NVIDIA GPUs")
    arguments = parser.parse_args()
    package = onnxruntime_for_cuda() if arguments.cuda else onnxruntime_for_this_machine()
    wheel = fetch(package, arguments.cache)
    for library in extract(wheel, arguments.output):
        print(f"{package.requirement}: {library}")
    if arguments.cuda:
        # A quarter of a gigabyte that nothing else reads.
        shutil.rmtree(wheel.parent)


if __name__ == "__main__":
    main()
