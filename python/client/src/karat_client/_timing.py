"""The clock, and what lets time pass: one value, so that tests need not sleep."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


def _sleep(seconds: float, stop: threading.Event) -> None:
    stop.wait(seconds)


@dataclass(frozen=True)
class Timing:
    """Where time and chance come from."""

    clock: Callable[[], float] = time.monotonic
    """Seconds that only go forward."""
    today: Callable[[], float] = time.time
    """Seconds since 1970, for a `Retry-After` that is a date."""
    jitter: Callable[[], float] = random.random
    """Uniform in 0..1."""
    sleep: Callable[[float, threading.Event], None] = _sleep
    """Waits in a thread, until the event is set at the latest."""
    sleep_async: Callable[[float], Awaitable[None]] = asyncio.sleep
    """Waits in an event loop."""
