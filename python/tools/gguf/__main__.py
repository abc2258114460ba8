"""The command line: see `tools.gguf`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tools.gguf.checkpoint import read_gguf, write_checkpoint
from tools.gguf.configuration import Unsupported


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="tools.gguf", description="Turn a GGUF file into a checkpoint folder.")
    parser.add_argument("file", type=Path, help="the .gguf file")
    parser.add_argument("folder", type=Path, help="the checkpoint folder to write")
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json to take the place of the file's own")
    arguments = parser.parse_args()
    tokenizer = json.loads(arguments.tokenizer.read_text()) if arguments.tokenizer else None
    try:
        checkpoint = read_gguf(arguments.file, tokenizer)
        write_checkpoint(checkpoint, arguments.folder)
    except (OSError, Unsupported) as error:
        sys.exit(f"not converted: {error}")
    layers = checkpoint.configuration["num_hidden_layers"]
    types = ", ".join(sorted({tensor.dtype for tensor in checkpoint.tensors}))
    print(f"{arguments.folder}: {layers} layers, weights as {types}")


if __name__ == "__main__":
    main()
