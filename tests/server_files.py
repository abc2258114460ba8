"""Where the server, its models and what was fetched for them are."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "models"
CACHE = ROOT / ".karat/packages"


def executable() -> Path:
    """`KARAT_SERVER`, or what cargo built: the release if there is one."""
    named = os.environ.get("KARAT_SERVER")
    built = [Path(named)] if named else [ROOT / "target" / kind / "karat" for kind in ("release", "debug")]
    for path in built:
        if path.is_file():
            return path
    raise FileNotFoundError(f"none of {', '.join(map(str, built))} is there; build one, or name it with KARAT_SERVER")
