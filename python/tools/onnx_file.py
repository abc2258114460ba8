"""Writing a graph so that a reader never meets half a file."""

from __future__ import annotations

import os
from pathlib import Path

import onnx


def write_model(model: onnx.ModelProto, path: Path) -> None:
    """Serialises `model` to `path`, replacing it in one step."""
    write_bytes(model.SerializeToString(deterministic=True), path)


def write_bytes(graph: bytes, path: Path) -> None:
    """Writes a serialised graph to `path` as it is, replacing it in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(graph)
    os.replace(partial, path)
