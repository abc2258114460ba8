"""Training runs: naming one, reading what the server knows of it, and telling outcomes."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from in_memory import Server
from karat_client import AsyncClient, Client, Outcome
from karat_client.errors import InvalidReply
from karat_client.trl import RewardFunction

URL = "http://karat"
READING = {
    "value": 0.5,
    "low": 0.3,
    "high": 0.7,
    "limit": 0.25,
    "fires": True,
    "samples": 128,
    "reference_samples": 256,
}
REPORT: dict[str, Any] = {
    "run": "a",
    "samples": 640,
    "models": [
        {
            "model": "m",
            "samples": 640,
            "steps": [{"mean": 0.1}, {"mean": 0.2, "disagreement": 0.05, "length_correlation": None}],
            "signals": [
                {"signal": "judge_parts", "firing": True, "since_step": 7, "reading": READING},
                {"signal": "ranks_part", "firing": False, "since_step": None, "reading": None},
            ],
        }
    ],
}


def client(answer: Any, seen: list[httpx.Request]) -> Client:
    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=answer)

    return Client(URL, "m", transport=httpx.MockTransport(handle))


def test_a_run_is_read_and_flattened_for_loggers() -> None:
    seen: list[httpx.Request] = []
    run = client(REPORT, seen).run("a")
    assert seen[0].url.path == "/v1/runs/a"
    assert (run.name, run.samples, run.firing()) == ("a", 640, ("judge_parts",))
    assert run.models[0].signals[0].since_step == 7
    assert run.metrics("x/") == {
        "x/m/mean": 0.2,
        "x/m/disagreement": 0.05,
        "x/m/judge_parts": 0.5,
        "x/m/judge_parts_firing": 1.0,
    }


def test_outcomes_are_told_and_an_empty_list_is_refused() -> None:
    seen: list[httpx.Request] = []
    told = client({"accepted": 1, "repeated": 0, "unknown": [1]}, seen).add_outcomes(
        "a", [Outcome("r", 0, True), Outcome("s", 3, 0.5)]
    )
    assert (told.accepted, told.unknown) == (1, (1,))
    assert b'"value":true' in seen[0].content.replace(b" ", b"")
    with pytest.raises(ValueError, match="empty"):
        client({}, seen).add_outcomes("a", [])
    with pytest.raises(InvalidReply):
        client({"accepted": 1, "repeated": 0, "unknown": ["x"]}, seen).add_outcomes("a", [Outcome("r", 0, 1.0)])


def test_more_can_be_asked_of_a_run_without_waiting() -> None:
    seen: list[httpx.Request] = []

    async def ask() -> None:
        def handle(request: httpx.Request) -> httpx.Response:
            seen.append(request)
            return httpx.Response(200, json={})

        async with AsyncClient(URL, transport=httpx.MockTransport(handle)) as client:
            await client.configure_run("a", judge={"model": "other", "share": 0.1})

    asyncio.run(ask())
    assert (seen[0].method, seen[0].content) == ("PUT", b'{"judge": {"model": "other", "share": 0.1}}')


def test_a_reward_function_names_its_run_and_the_trainers_step(in_memory: Server) -> None:
    class State:
        global_step = 12

    function = RewardFunction(URL, "m", run="a")
    function(prompts=["p"], completions=["x"], trainer_state=State())
    function(prompts=["p"], completions=["x"])
    assert [(sent.get("run"), sent.get("step")) for sent in in_memory.requests] == [("a", 12), ("a", None)]
