"""What both clients are made from."""

from __future__ import annotations

from typing import Any

import httpx

from karat_client._requests import Caller
from karat_client._timing import Timing
from karat_client.options import Settings


class Base:
    """Settings, a clock, and on whose behalf operations run."""

    def __init__(self, settings: Settings, timing: Timing | None) -> None:
        self.settings = settings
        self._timing = timing or Timing()
        self._caller = Caller(settings, self._timing)


def http_options(settings: Settings) -> dict[str, Any]:
    """How httpx is set up: one pool, whose size is bounded by the slots of the driver, not by waiting in the pool."""
    key = {} if settings.api_key is None else {"authorization": f"Bearer {settings.api_key}"}
    return {
        "base_url": settings.url,
        "headers": {"user-agent": "karat-client", **key, **settings.headers},
        "verify": settings.verify,
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=settings.max_concurrency),
    }
