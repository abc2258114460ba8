"""The `model.toml` of an exported checkpoint: what it says, and what only its user knows."""

from __future__ import annotations

import json
from pathlib import Path

from tools.decoder.checkpoint import Checkpoint
from tools.decoder.config import DecoderConfig, Unsupported

HEAD_OUTPUTS = {"sequence": "scores", "token": "scores", "language_model": "logits"}


def default_head(config: DecoderConfig) -> str:
    """The head that fits the checkpoint, as a TOML value; raises Unsupported where several do."""
    if config.kind == "language_model":
        return '"log_probability"'
    if config.kind == "sequence" and config.labels == 1:
        return '"scalar"'
    what = "step scores" if config.kind == "token" else f"{config.labels} outputs"
    raise Unsupported(
        f"{what} can mean several things: say which head reads them, such as "
        f"--head '{{ multi = {{ members = {config.labels} }} }}'"
    )


def write_manifest(
    path: Path,
    checkpoint: Checkpoint,
    config: DecoderConfig,
    head: str,
    source: str,
    max_tokens: int | None = None,
    step_mark: str | None = None,
) -> None:
    """Writes a manifest of what the checkpoint says; everything else is left at its default."""
    lines = [
        f"description = {_quoted(f'{source}, exported as a graph that shares prefixes')}",
        f"head = {head}",
        "",
        "[graph]",
        'file = "model.onnx"',
        f'output = "{HEAD_OUTPUTS[config.kind]}"',
        "",
        "[text]",
        'tokenizer = "tokenizer.json"',
    ]
    if checkpoint.chat_template is None:
        lines.append('render = "raw"                        # the checkpoint has no chat template')
    else:
        lines.append('render = "chat_template"')
    tokens = checkpoint.special_tokens
    for name, token in (("bos", tokens.bos), ("eos", tokens.eos), ("pad", tokens.pad)):
        if token is not None:
            lines.append(f"{name}_token = {_quoted(token)}")
    if step_mark is not None:
        lines.append(f"step_mark = {_quoted(step_mark)}")
    lines.append(f"max_tokens = {min(max_tokens or config.context, config.context)}")
    path.write_text("\n".join(lines) + "\n")


def _quoted(text: str) -> str:
    """A TOML basic string; JSON's escapes are a subset of its own."""
    return json.dumps(text, ensure_ascii=False)
