"""A karat in memory, and a clock that goes forward only when something waits."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from karat_client._timing import Timing

Handler = Callable[[httpx.Request], httpx.Response]


@dataclass
class Clock:
    """Time that passes only in waits; `pauses` are those waits."""

    now: float = 1000.0
    pauses: list[float] = field(default_factory=list)
    jitter: float = 0.0

    def timing(self) -> Timing:
        return Timing(
            clock=lambda: self.now,
            today=lambda: 0.0,
            jitter=lambda: self.jitter,
            sleep=lambda seconds, stop: self._pass(seconds),
            sleep_async=self._pass_async,
        )

    def _pass(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    async def _pass_async(self, seconds: float) -> None:
        self._pass(seconds)


def reward_of(text: str) -> float:
    """What the server in memory scores: each text gets a reward of its own."""
    return float(int.from_bytes(text.encode()[-4:], "big") % 100_003) / 7.0


@dataclass
class Server:
    """Answers the scoring routes in karat's shape. A response "blank" or "long" is refused as the real server does."""

    version: str = "v1"
    requests: list[dict[str, Any]] = field(default_factory=list)
    before: list[Handler | httpx.Response | Exception] = field(default_factory=list)
    """Outcomes of the first requests, before the server answers properly."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        with self.lock:
            body = json.loads(request.content) if request.content else {}
            self.requests.append({"path": request.url.path, **body})
            outcome = self.before.pop(0) if self.before else None
        if isinstance(outcome, Exception):
            raise outcome
        if isinstance(outcome, httpx.Response):
            return outcome
        if outcome:
            return outcome(request)
        answer = {"/v1/best-of-n": self.best_of_n, "/v1/compare": self.compare, "/v1/process": self.process}
        return answer.get(request.url.path, self.score)(body)

    def score(self, body: dict[str, Any]) -> httpx.Response:
        responses = [response_of(entry) for entry in body["inputs"]]
        for index, response in enumerate(responses):
            if not response.strip():
                return problem(422, "invalid-request", f"inputs[{index}]: the response is empty", index=index)
            if response.startswith("long"):
                return problem(422, "too-long", f"inputs[{index}] is too long", index=index)
        return httpx.Response(200, json=score_body(responses, self.version, body["model"]))

    def best_of_n(self, body: dict[str, Any]) -> httpx.Response:
        candidates = [text_of(candidate) for candidate in body["candidates"]]
        results = score_body(candidates)["results"]
        rewards = [float(result["reward"]) for result in results]
        order = sorted(range(len(rewards)), key=lambda index: (-rewards[index], index))
        leads = [rewards[one] - rewards[other] for one, other in itertools.pairwise(order)]
        placements = [
            {
                "index": index,
                "rank": 1 + sum(reward > rewards[index] for reward in rewards),
                "reward": rewards[index],
                "behind": rewards[order[0]] - rewards[index],
                "ahead": lead,
            }
            for index, lead in zip(order, [*leads, None], strict=True)
        ]
        choice = {"best": order[0], "selected": {"indices": order[:1]}, "ranking": placements}
        return httpx.Response(200, json=score_body(candidates, self.version, body["model"]) | choice)

    def compare(self, body: dict[str, Any]) -> httpx.Response:
        chosen, rejected = ([text_of(pair[side]) for pair in body["pairs"]] for side in ("chosen", "rejected"))
        for index, pair in enumerate(zip(chosen, rejected, strict=True)):
            if "long" in pair:
                return problem(422, "too-long", f"pairs[{index}] is too long", index=index)
        better, worse = score_body(chosen)["results"], score_body(rejected)["results"]
        return httpx.Response(200, json=compare_body(better, worse, self.version, body["model"]))

    def process(self, body: dict[str, Any]) -> httpx.Response:
        reply = score_body(["".join(entry["steps"]) for entry in body["inputs"]], self.version, body["model"])
        for result, entry in zip(reply["results"], body["inputs"], strict=True):
            scores = [reward_of(step) for step in entry["steps"]]
            result |= {"scores": scores, "rewards": scores, "returns_to_go": scores, "reductions": {"min": min(scores)}}
        return httpx.Response(200, json=reply)

    def sizes(self) -> list[int]:
        """How many inputs, pairs or candidates each request had."""
        lists = ("inputs", "pairs", "candidates")
        return [len(request[name]) for request in self.requests for name in lists if name in request]


def response_of(entry: dict[str, Any]) -> str:
    if "messages" in entry:
        return str(entry["messages"][-1]["content"])
    return next(str(entry[name]) for name in ("response", "text", "image") if name in entry)


def text_of(candidate: Any) -> str:
    """A candidate's text, or what stands for its image."""
    return str(candidate["image"] if isinstance(candidate, dict) else candidate)


def score_body(responses: list[str], version: str = "v1", model: str = "m") -> dict[str, Any]:
    results = [
        {
            "index": index,
            "reward": reward_of(response),
            "raw": reward_of(response) + 1,
            "ensemble": {"mean": 2.0, "worst_case": 1.0, "variance": 4.0},
            "tokens": len(response),
            "truncated": False,
        }
        for index, response in enumerate(responses)
    ]
    usage = {"tokens": sum(map(len, responses)), "cached_tokens": 0}
    return {"id": "id-1", "model": model, "model_version": version, "results": results, "usage": usage}


def compare_body(
    chosen: list[dict[str, Any]], rejected: list[dict[str, Any]], version: str = "v1", model: str = "m"
) -> dict[str, Any]:
    results = [
        {
            "index": index,
            "margin": better["reward"] - worse["reward"],
            "probability": 0.75,
            "strength": {"mean": 0.5, "deviation": 0.25},
            "unanimous": True,
            "chosen": better | {"index": index},
            "rejected": worse | {"index": index},
        }
        for index, (better, worse) in enumerate(zip(chosen, rejected, strict=True))
    ]
    usage = {"tokens": 0, "cached_tokens": 0}
    return {"id": "id-1", "model": model, "model_version": version, "accuracy": 0.5, "results": results, "usage": usage}


def problem(status: int, word: str, detail: str, *, retry_after: str | None = None, **more: Any) -> httpx.Response:
    body = {"type": f"urn:karat:problem:{word}", "title": word, "status": status, "detail": detail, **more}
    headers = {"content-type": "application/problem+json", "x-request-id": "id-9"}
    if retry_after is not None:
        headers["retry-after"] = retry_after
    return httpx.Response(status, content=json.dumps(body), headers=headers)
