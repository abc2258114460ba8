"""Packs everything that `check.py` needs on a GPU machine without a network.

    make gpu-check-bundle        # writes .karat/gpu-check/bundle, each file below 60 MiB
    # copy that folder to the GPU machine, then there:
    python3 check.py

The bundle holds the release binaries, ONNX Runtime with its CUDA provider, the
`relevance` model in fp32 and fp16, a workload, and a decoder: `smol-reward` where
`make setup-decoders` built it, else a random Llama; CUDA's own libraries come
from the machine. Its texts are licensed CC BY-NC 4.0: don't publish a bundle.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from loadtest import workload
from tests.gpu import pieces

SAMPLES = 2048
# What the check imports and runs: its place in the bundle, and where it lies here.
SOURCES = {
    name: Path(name)
    for name in (
        *("loadtest/__init__.py", "loadtest/decoder.py", "loadtest/machine.py", "loadtest/offline.py"),
        *("loadtest/repository.py", "loadtest/wire.py", "tests/__init__.py", "tests/gpu/__init__.py"),
        *("tests/gpu/check.py", "tests/gpu/pieces.py", "tests/gpu/transformers_rate.py", "tests/gpu/findings.py"),
    )
} | {name: Path("python") / name for name in ("tools/__init__.py", "tools/link_file.py", "tools/server_process.py")}
PROGRAM = "from tests.gpu.check import main\n\nmain()\n"


def write_program(folder: Path) -> None:
    """Writes `check.py`, and what it runs, into `folder`."""
    for name, source in SOURCES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / name)
    (folder / "check.py").write_text(PROGRAM)


def main() -> None:
    parser = argparse.ArgumentParser(description="Pack the GPU check for another machine.")
    parser.add_argument("--binaries", type=Path, default=Path("target/release"))
    parser.add_argument("--onnxruntime", type=Path, required=True, help="its folder, with CUDA")
    parser.add_argument("--model", type=Path, default=Path("models/relevance"))
    parser.add_argument("--half", type=Path, required=True, help="the model's folder in fp16")
    parser.add_argument("--decoders", type=Path, default=Path("models/decoders"))
    parser.add_argument("--random", type=Path, default=Path(".karat/loadtest/llama"))
    parser.add_argument("--cache", type=Path, default=Path(".karat/packages"))
    parser.add_argument("--output", type=Path, default=Path(".karat/gpu-check/bundle"))
    arguments = parser.parse_args()

    if arguments.output.exists():
        shutil.rmtree(arguments.output)
    scratch = arguments.output.parent / "workload"
    mixed = workload.make(arguments.model, SAMPLES, arguments.cache, scratch).mixed
    files = {
        "bin/karat": arguments.binaries / "karat",
        "bin/loadtest": arguments.binaries / "examples/loadtest",
        "workload.jsonl": mixed.path,
    }
    for library in sorted(arguments.onnxruntime.glob("libonnxruntime*.so")):
        files[f"lib/{library.name}"] = library
    for name, folder in (("fp32", arguments.model), ("fp16", arguments.half)):
        for file in ("model.onnx", "tokenizer.json", "model.toml"):
            files[f"models/{name}/{file}"] = folder / file
    decoder = the_decoder(arguments.decoders, arguments.random)
    for part in sorted(decoder.iterdir()):
        if part.name.startswith(("model.", "config.", "tokenizer", "value_head.", "chat_template")):
            files[f"decoders/{decoder.name}/{part.name}"] = part
    pieces.pack(files, arguments.output)
    write_program(arguments.output)
    sizes = [path.stat().st_size for path in arguments.output.rglob("*") if path.is_file()]
    print(
        f"{arguments.output}: {sum(sizes) >> 20} MiB, no file above {max(sizes) / 2**20:.1f} MiB, "
        f"prefix sharing on {decoder.name}"
    )


def the_decoder(built: Path, random: Path) -> Path:
    """The folder of the decoder that prefix sharing is measured on; a random one is made where none is built."""
    smol = built / "smol-reward"
    if (smol / "config.json").is_file():
        return smol
    if not (random / "llama-shared/config.json").is_file():
        subprocess.run([sys.executable, "-m", "loadtest.random_llama", "--output", str(random)], check=True)
    return random / "llama-shared"


if __name__ == "__main__":
    main()
