"""Tokenizer files as a server needs them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_tokenizer(tokenizer: dict[str, Any], path: Path) -> None:
    """Writes `tokenizer` to `path` with its padding and truncation switched off.

    Packages ship fixed padding and silent truncation. Both are the server's
    decisions: it pads a batch as little as it must, and never cuts unasked.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({**tokenizer, "padding": None, "truncation": None}, ensure_ascii=False))
    os.replace(partial, path)
