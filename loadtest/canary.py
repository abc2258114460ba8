"""A canary: a few samples whose scores are known, asked for again and again while others do their worst.

Only the standard library is used: nothing of a client library stands between a request and its answer.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from loadtest import wire

TOLERANCE = 1e-4
# Without keys clients are told apart by their addresses, and this one is nobody's but the canary's.
ADDRESS = "127.0.0.2"
PAIRS = [
    ("how long to boil an egg", "Put it into boiling water for eight minutes."),
    ("how long to boil an egg", "The sea is deep."),
    ("name a prime above ten", "11 is prime, since nothing but 1 and itself divides it."),
    ("why is the sky blue", "Air scatters short waves more than long ones."),
]


def reference(url: str, model: str) -> list[float]:
    """The score of each pair, alone in its request."""
    scores = []
    for prompt, response in PAIRS:
        body = {"model": model, "inputs": [{"prompt": prompt, "response": response}], "transforms": []}
        scores.append(float(wire.post(url, "/v1/score", body)["results"][0]["reward"]))
    return scores


def quantile(values: list[float], share: float) -> float:
    """The value below which that share of the values lies; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


@dataclass
class Canary:
    """What became of the canary's requests."""

    url: str
    model: str
    scores: list[float]
    rate: float = 20.0
    seconds: list[float] = field(default_factory=list)
    wrong: int = 0
    failed: list[str] = field(default_factory=list)

    def run(self, until: threading.Event) -> None:
        """Asks at the rate until it is told to end; a late request counts from when it should have been sent."""
        started, sent, waiting = time.monotonic(), 0, []
        while not until.is_set():
            due = started + sent / self.rate
            time.sleep(max(0.0, due - time.monotonic()))
            asking = threading.Thread(target=self._ask, args=(sent % len(PAIRS), due), daemon=True)
            asking.start()
            waiting.append(asking)
            sent += 1
        for asking in waiting:
            asking.join()

    def _ask(self, index: int, due: float) -> None:
        prompt, response = PAIRS[index]
        body: dict[str, Any] = {"model": self.model, "transforms": []}
        # A response of its own each time, so that no cache answers.
        body["inputs"] = [{"prompt": prompt, "response": response}, {"prompt": prompt, "response": f"{due:.9f}"}]
        try:
            status, content = wire.request(self.url, "POST", "/v1/score", body, sender=ADDRESS)
            if status != 200:
                self.failed.append(f"HTTP {status}")
                return
            reward = float(json.loads(content)["results"][0]["reward"])
        except (OSError, http.client.HTTPException) as error:
            self.failed.append(type(error).__name__)
            return
        self.seconds.append(time.monotonic() - due)
        self.wrong += int(abs(reward - self.scores[index]) > TOLERANCE)
