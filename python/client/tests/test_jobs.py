"""Jobs, and scores that aren't waited for."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from in_memory import Clock, problem, reward_of, score_body
from karat_client import AsyncClient, Client, Pending, errors

URL = "http://karat"
JOB = {"id": "j", "state": "running", "rows": 3, "done": 0, "failed": 0, "rate": None, "seconds_left": None}


def line(index: int, response: str) -> dict[str, Any]:
    result: dict[str, Any] = score_body([response])["results"][0]
    return result | {"index": index, "model_version": "v1"}


class Jobs:
    """Answers `/v1/jobs`: the results come in the portions that are given, with empty replies where one is None."""

    def __init__(self, portions: list[list[dict[str, Any]] | None]) -> None:
        self.portions = portions
        self.seen: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        if request.url.path.endswith("/results"):
            portion = self.portions.pop(0) if self.portions else None
            return httpx.Response(200, text="".join(json.dumps(entry) + "\n" for entry in portion or []))
        state = "running" if self.portions else "done"
        return httpx.Response(202 if request.method == "POST" else 200, json=JOB | {"state": state})


def client(jobs: Jobs, clock: Clock) -> Client:
    return Client(URL, "m", transport=httpx.MockTransport(jobs), timing=clock.timing())


def test_rows_are_handed_over_in_one_request_a_line_each(clock: Clock) -> None:
    jobs = Jobs([])
    job = client(jobs, clock).submit_job(
        prompts="p", responses=["a", "b\n"], aggregate="worst_case", include=["members"]
    )
    assert (job.id, job.rows, job.lasts) == ("j", 3, False)
    head, *rows = map(json.loads, jobs.seen[0].content.decode().split("\n"))
    assert head == {"model": "m", "aggregate": "worst_case", "include": ["members"]}
    assert rows == [{"prompt": "p", "response": "a"}, {"prompt": "p", "response": "b\n"}]
    with pytest.raises(errors.InvalidInput):
        client(jobs, clock).submit_job(messages=[[{"role": "user", "content": [{"type": "image_url"}]}]])


def test_an_attempt_without_a_reply_is_repeated_as_the_same_job(clock: Clock) -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["idempotency-key"])
        if len(seen) == 1:
            raise httpx.ReadError("the reply was lost")
        return httpx.Response(202, json=JOB)

    one = Client(URL, "m", transport=httpx.MockTransport(answer), timing=clock.timing())
    one.submit_job(texts=["a"])
    one.submit_job(texts=["a"])
    one.submit_job(texts=["a"], idempotency_key="mine")
    assert seen[0] == seen[1]
    assert len(set(seen[1:])) == 3
    assert seen[3] == "mine"


def test_what_names_another_job_is_told(clock: Clock) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        return problem(422, "other-job", "send each job under a key of its own")

    one = Client(URL, "m", transport=httpx.MockTransport(answer), timing=clock.timing())
    with pytest.raises(errors.OtherJob, match="of its own"):
        one.submit_job(texts=["a"], idempotency_key="mine")


def test_results_are_waited_for_and_a_row_that_failed_says_why(clock: Clock) -> None:
    refused = {"type": "urn:karat:problem:too-long", "title": "t", "status": 422, "detail": "too long"}
    jobs = Jobs([None, [line(0, "a"), {"index": 1, "error": refused}], None, [line(2, "b")], []])
    with client(jobs, clock) as one:
        first = one.job_results("j")
        assert (len(first.results), first.next_offset) == (2, 2)
        good, bad = first.results
        assert good.result is not None
        assert (good.result.reward, good.model_version) == (reward_of("a"), "v1")
        assert isinstance(bad.problem, errors.SampleTooLong)
        assert (bad.problem.index, bad.result) == (1, None)
        assert one.job_results("j", offset=2).results[0].index == 2
        assert one.job_results("j", offset=3).results == ()
    assert clock.pauses == [0.5, 0.5]
    assert "offset=2" in str(jobs.seen[-4].url)


def test_a_job_that_takes_longer_than_the_timeout_is_told(clock: Clock) -> None:
    jobs = Jobs([None] * 100)
    with pytest.raises(errors.TimeoutPassed, match="row 0"):
        client(jobs, clock).job_results("j", timeout=10)


def test_a_job_is_cancelled_with_awaits_too(clock: Clock) -> None:
    jobs = Jobs([])

    async def main() -> None:
        transport = httpx.MockTransport(jobs)
        async with AsyncClient(URL, "m", transport=transport, timing=clock.timing()) as one:
            assert (await one.cancel_job("a/b")).state == "done"
            assert (await one.job("j")).failed == 0

    asyncio.run(main())
    assert [(request.method, request.url.raw_path) for request in jobs.seen] == [
        ("DELETE", b"/v1/jobs/a%2Fb"),
        ("GET", b"/v1/jobs/j"),
    ]


def test_what_is_not_known_yet_is_pending_and_never_a_number(clock: Clock) -> None:
    seen: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content))
        body = score_body(["a", "b"])
        body["results"][1] = {"index": 1, "reward": None, "raw": None, "pending": True}
        return httpx.Response(200, json=body)

    with Client(URL, "m", transport=httpx.MockTransport(answer), timing=clock.timing()) as one:
        known = one.known_scores(prompts="p", responses=["a", "b"])
    assert seen[0]["wait"] is False
    assert (known.rewards, known.pending) == ([reward_of("a"), None], [1])
    assert known.results[1] == Pending(1)
