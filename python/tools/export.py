"""Writes a decoder checkpoint as a model folder whose graph shares prefixes.

    .venv/bin/python -m tools.export CHECKPOINT --output models/NAME

CHECKPOINT is a Hugging Face folder (Llama, Mistral, Qwen2, Qwen3; sequence
classification, token classification or language model) or a GGUF file.
docs/export.md says what is supported and what the folder holds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

from safetensors.numpy import load_file

from tools.decoder.checkpoint import Checkpoint, read_folder
from tools.decoder.config import Unsupported
from tools.decoder.folder import write_folder
from tools.decoder.gguf_file import read_gguf
from tools.decoder.manifest import default_head, write_manifest


def read_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint folder or a GGUF file; raises Unsupported."""
    if path.is_dir():
        return read_folder(path)
    if path.suffix == ".gguf" and path.is_file():
        return read_gguf(path)
    raise Unsupported(f"{path} is neither a folder nor a .gguf file")


def export(arguments: argparse.Namespace) -> None:
    """Does what the command line says; raises Unsupported."""
    checkpoint = read_checkpoint(arguments.checkpoint)
    if arguments.tokenizer:
        checkpoint = replace(checkpoint, tokenizer=json.loads(arguments.tokenizer.read_text()))
    _check_head(arguments.head)
    heads = load_file(arguments.heads) if arguments.heads else None
    if not (arguments.head or arguments.heads):
        default_head(checkpoint.config)
    if not checkpoint.files:
        types = ", ".join(sorted(checkpoint.stored))
        print(f"weights are stored as {types}: writing them as float32, which loses nothing")
    done = write_folder(checkpoint, arguments.output, heads)
    manifest = arguments.output / "model.toml"
    if manifest.exists():
        print(f"{manifest} is there already and stays as it is")
    else:
        head = arguments.head or default_head(done.config)
        source = arguments.checkpoint.resolve().name
        limit, mark = arguments.max_tokens, arguments.step_mark
        write_manifest(manifest, checkpoint, done.config, head, source, limit, mark)
    for item in done.comparisons:
        worst = max(item.differences.values())
        print(f"{item.output}: off the reference by {worst:.1e} of {item.allowed:.1e} allowed")
    print(f"{arguments.output}: {done.config.layers} layers, outputs {', '.join(done.outputs)}")


def _check_head(head: str | None) -> None:
    """Raises Unsupported for a head that the manifest couldn't hold: before anything is written."""
    try:
        tomllib.loads(f"head = {head or '0'}")
    except tomllib.TOMLDecodeError as error:
        quoted = f"'\"{head}\"'"
        raise Unsupported(
            f"--head {head} is no TOML value ({error}): write a name as {quoted}, and a table as "
            "'{ multi = { members = 4 } }'"
        ) from error


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Export a decoder checkpoint as a model folder.")
    parser.add_argument("checkpoint", type=Path, help="checkpoint folder or .gguf file")
    parser.add_argument("--output", type=Path, required=True, help="the model folder to write")
    parser.add_argument("--head", help="the manifest's head, as a TOML value")
    parser.add_argument(
        "--heads",
        type=Path,
        help="reward heads for a trunk: .safetensors with score.weight [K, hidden]",
    )
    parser.add_argument("--max-tokens", type=int, help="below the checkpoint's own context")
    parser.add_argument("--step-mark", help="a process model's token at the end of each step")
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json to take the checkpoint's place")
    try:
        export(parser.parse_args())
    except Unsupported as error:
        sys.exit(f"not exported: {error}")


if __name__ == "__main__":
    main()
