"""A GGUF file, read as the parts of a checkpoint folder, and that folder written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGUFReader

from tools.gguf.configuration import Unsupported, configuration
from tools.gguf.tensors import named_tensors
from tools.gguf.tokenizer import settings, tokenizer
from tools.safetensors_file import Tensor, write_safetensors
from tools.tokenizer_file import write_tokenizer

CONFIGURATION = "config.json"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """The content of `config.json`, weights, `tokenizer.json`, `tokenizer_config.json` and chat template."""

    configuration: dict[str, Any]
    tensors: list[Tensor]
    tokenizer: dict[str, Any]
    settings: dict[str, str]
    chat_template: str | None


def read_gguf(path: Path, own_tokenizer: dict[str, Any] | None = None) -> Checkpoint:
    """A GGUF file as the checkpoint of a language model; raises Unsupported.

    `own_tokenizer` takes the place of the file's, of which not every kind can be rebuilt.
    """
    try:
        file = GGUFReader(path)
    except ValueError as error:
        raise Unsupported(f"{path} is no GGUF file that can be read: {error}") from error
    metadata = {name: field.contents() for name, field in file.fields.items()}
    described = configuration(metadata, {tensor.name for tensor in file.tensors})
    return Checkpoint(
        configuration=described,
        tensors=named_tensors(file.tensors, described),
        tokenizer=own_tokenizer or tokenizer(metadata),
        settings=settings(metadata),
        chat_template=metadata.get("tokenizer.chat_template"),
    )


def write_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Writes all of it into `folder`."""
    write_safetensors(checkpoint.tensors, folder / WEIGHTS)
    write_but_weights(checkpoint, folder)


def write_but_weights(checkpoint: Checkpoint, folder: Path) -> None:
    """Writes what says how the weights are used, for a folder that has them already."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(checkpoint.tokenizer, folder / "tokenizer.json")
    _write_json(checkpoint.settings, folder / "tokenizer_config.json")
    if checkpoint.chat_template is not None:
        (folder / "chat_template.jinja").write_text(checkpoint.chat_template)
    # Last: a folder is a checkpoint once it has one.
    _write_json(checkpoint.configuration, folder / CONFIGURATION)


def _write_json(value: object, path: Path) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n")
