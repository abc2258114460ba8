"""Packs everything that `check.py` needs on a GPU machine without a network.

    make gpu-check-bundle        # writes .karat/gpu-check/bundle, in pieces of at most 50 MB
    # copy that folder to the GPU machine, all at once or piece by piece, then there:
    python3 check.py

The bundle holds the release binaries, ONNX Runtime with its CUDA provider, the recorded checkpoints with Transformers'
scores, and a foreign graph without its weights. CUDA's libraries, and PyTorch with Transformers to be measured beside,
come from the machine's Python. Models are made of random numbers there.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from tests.gpu import foreign, pieces

MOST = 250_000_000
GPU = Path("tests/gpu")
# What the check imports and runs, as it lies in a checkout.
SOURCES = [
    *(Path("loadtest") / name for name in ("__init__.py", "decoder.py", "machine.py", "repository.py", "wire.py")),
    *(Path("tests/__init__.py"), GPU / "__init__.py", GPU / "parts"),
    *(GPU / f"{name}.py" for name in ("check", "checkpoints", "findings", "foreign", "kit", "peer", "pieces")),
    *(GPU / f"{name}.py" for name in ("shapes", "texts")),
]
TOOLS = ("__init__.py", "link_file.py", "server_process.py")
PROGRAM = "from tests.gpu.check import main\n\nmain()\n"
RECORDED = Path("tests/checkpoints")


def write_program(folder: Path) -> None:
    """Writes `check.py`, and what it runs, into `folder`."""
    sources = [(source, source) for source in SOURCES]
    sources += [(Path("python/tools") / name, Path("tools") / name) for name in TOOLS]
    for source, target in sources:
        for file in sorted(source.glob("*.py")) if source.is_dir() else [source]:
            place = folder / target / file.name if source.is_dir() else folder / target
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
    (folder / "check.py").write_text(PROGRAM)


def recorded(folder: Path = RECORDED) -> dict[str, Path]:
    """The files of the recorded checkpoints, by their places in a bundle."""
    folders = sorted(path.parent for path in folder.glob("*/expected.json"))
    return {f"recorded/{one.name}/{file.name}": file for one in folders for file in sorted(one.iterdir())}


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Pack the GPU check for another machine.")
    parser.add_argument("--binaries", type=Path, default=Path("target/release"))
    parser.add_argument("--onnxruntime", type=Path, required=True, help="its folder, with CUDA")
    parser.add_argument("--foreign", type=Path, required=True, help="an exported graph of the MiniLM-L12 shape")
    parser.add_argument("--output", type=Path, default=Path(".karat/gpu-check/bundle"))
    arguments = parser.parse_args()

    if arguments.output.exists():
        shutil.rmtree(arguments.output)
    with tempfile.TemporaryDirectory() as scratch:
        graph = Path(scratch) / "foreign"
        foreign.strip(arguments.foreign, graph)
        files = {"bin/karat": arguments.binaries / "karat", "bin/loadtest": arguments.binaries / "examples/loadtest"}
        # TensorRT's provider can't start where its libraries aren't.
        for library in sorted(arguments.onnxruntime.glob("libonnxruntime*.so")):
            if "tensorrt" not in library.name:
                files[f"lib/{library.name}"] = library
        files |= {f"foreign/{file.name}": file for file in sorted(graph.iterdir())} | recorded()
        pieces.pack(files, arguments.output)
    write_program(arguments.output)
    sizes = {path.name: path.stat().st_size for path in arguments.output.rglob("*") if path.is_file()}
    for name, size in sorted(sizes.items()):
        if name.startswith("piece-"):
            print(f"{arguments.output / name}: {size / 1e6:.1f} MB")
    print(f"{arguments.output}: {sum(sizes.values()) / 1e6:.1f} MB in all")
    if sum(sizes.values()) > MOST:
        raise SystemExit(f"that is more than {MOST / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
