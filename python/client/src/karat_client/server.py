"""What a server says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelCard:
    """One model of the server."""

    id: str
    status: str
    """`ready`, `loading` or `failed`."""
    reason: str | None
    """Why the model failed to load."""
    version: str | None
    """Exactly which model it is; None until it is ready."""
    description: str | None
    license: str | None
    max_tokens: int | None
    """The most tokens that a sample may have, special tokens included."""
    details: Mapping[str, Any]
    """The whole card as the server sent it: graphs, aggregation, transforms and what newer servers add."""


@dataclass(frozen=True)
class Health:
    """How far the server has come."""

    status: str
    """`ready`, `loading` or `failed`."""
    models: Mapping[str, str]
    """How far each model has come."""
