"""A checkpoint: configuration, weights, tokenizer and chat template, whatever file they came in."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.decoder.config import DecoderConfig, Unsupported, read_config
from tools.decoder.weights import SafetensorsWeights, Weights, checkpoint_files

# Tensors that a graph doesn't need: tables that are computed anew, and heads that aren't read.
UNUSED = ("rotary_emb.inv_freq", "lm_head.weight")


@dataclass(frozen=True)
class SpecialTokens:
    """The tokens that a template and a server must know by name."""

    bos: str | None = None
    eos: str | None = None
    pad: str | None = None


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a model folder is made of.

    `files` are the float32 files that a graph may refer to; where it is empty
    the weights must be converted first, because they are of the types `stored`.
    """

    config: DecoderConfig
    weights: Weights
    tokenizer: dict[str, Any]
    special_tokens: SpecialTokens
    chat_template: str | None
    files: tuple[Path, ...] = ()
    stored: frozenset[str] = field(default_factory=frozenset)


def read_folder(folder: Path) -> Checkpoint:
    """A Hugging Face checkpoint folder; raises Unsupported."""
    config = read_config(folder)
    files = checkpoint_files(folder)
    weights = SafetensorsWeights(files)
    stored = frozenset(weights.dtypes())
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise Unsupported(f"{folder} has no tokenizer.json; save the fast tokenizer into it")
    settings = _read_json(folder / "tokenizer_config.json")
    return Checkpoint(
        config=config,
        weights=weights,
        tokenizer=json.loads(path.read_text()),
        special_tokens=SpecialTokens(*(_token(settings.get(f"{name}_token")) for name in ("bos", "eos", "pad"))),
        chat_template=_chat_template(folder, settings),
        files=tuple(files) if stored == {"F32"} else (),
        stored=stored,
    )


def refuse_leftovers(checkpoint: Checkpoint, used: set[str]) -> None:
    """Raises Unsupported where the checkpoint has tensors that the graph never reads.

    They are the sign of a part of the model that isn't known here.
    """
    left = {name for name in checkpoint.weights.names() - used if not name.endswith(UNUSED)}
    if left:
        some = ", ".join(sorted(left)[:4])
        raise Unsupported(f"{len(left)} tensors have no place in a {checkpoint.config.family}: {some}")


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}


def _token(value: Any) -> str | None:
    """A token's text: plain, or the `content` of an added token."""
    return value.get("content") if isinstance(value, dict) else value


def _chat_template(folder: Path, settings: dict[str, Any]) -> str | None:
    """The template of `chat_template.jinja`, else of `tokenizer_config.json`."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text()
    template = settings.get("chat_template")
    if isinstance(template, list):
        template = next((t["template"] for t in template if t["name"] == "default"), None)
    return template
