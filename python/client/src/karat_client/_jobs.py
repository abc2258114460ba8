"""What a client asks of jobs and how the replies are read, written once for sync and async callers."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from karat_client._effects import Operation, Reply, wait
from karat_client._replies import json_object, number_or_none, problem, score_result, table, text, whole
from karat_client._requests import Caller
from karat_client.errors import InvalidInput, InvalidReply, TimeoutPassed
from karat_client.inputs import Input
from karat_client.jobs import Job, JobResult, JobResults
from karat_client.options import ScoreOptions, request_fields

POLL_SECONDS = 0.5
"""How often a job is asked for results that aren't there yet."""


def submit(
    caller: Caller, inputs: Sequence[Input | InvalidInput], options: ScoreOptions, idempotency_key: str | None
) -> Operation[Job]:
    """Hands all inputs over in one request; an attempt that got no reply may have handed them over, too."""
    rows: list[bytes] = []
    for entry in inputs:
        if isinstance(entry, InvalidInput):
            raise entry
        rows.append(entry.body)
    head = json.dumps(request_fields(options, caller.settings.model), ensure_ascii=False, allow_nan=False).encode()
    body = b"\n".join([head, *rows])
    exchange = caller.exchange(options.get("timeout"))
    reply = yield from exchange.request(
        "POST", "/v1/jobs", lambda _: body, idempotency_key=idempotency_key or str(uuid.uuid4())
    )
    return _job(json_object(reply))


def find(caller: Caller, job: str, timeout: float | None) -> Operation[Job]:
    """How far a job is."""
    reply = yield from caller.exchange(timeout).request("GET", _path(job))
    return _job(json_object(reply))


def cancel(caller: Caller, job: str, timeout: float | None) -> Operation[Job]:
    """Cancels a job, or removes one that has ended."""
    reply = yield from caller.exchange(timeout).request("DELETE", _path(job))
    return _job(json_object(reply))


def results(caller: Caller, job: str, offset: int, limit: int, timeout: float | None) -> Operation[JobResults]:
    """The results from a place on; waits until there is one, or the job has ended."""
    exchange = caller.exchange(timeout)
    has_ended = False
    while True:
        reply = yield from exchange.request("GET", f"{_path(job)}/results?offset={offset}&limit={limit}")
        found = _results(reply, caller.timing.today())
        if found or has_ended:
            return JobResults(tuple(found), offset + len(found))
        state = _job(json_object((yield from exchange.request("GET", _path(job))))).state
        # What came between the two requests is still to be asked for.
        has_ended = state in ("done", "cancelled")
        if not has_ended:
            if exchange.deadline.remaining() <= POLL_SECONDS:
                raise TimeoutPassed(f"the job {job} had no result for row {offset} in time")
            yield from wait(POLL_SECONDS)


def _path(job: str) -> str:
    return f"/v1/jobs/{quote(job, safe='')}"


def _job(body: Mapping[str, Any]) -> Job:
    return Job(
        id=text(body, "id"),
        state=text(body, "state"),
        rows=whole(body, "rows"),
        done=whole(body, "done"),
        failed=whole(body, "failed"),
        rate=number_or_none(body, "rate"),
        seconds_left=number_or_none(body, "seconds_left"),
        lasts=body.get("lasts") is True,
    )


def _results(reply: Reply, today: float) -> list[JobResult]:
    return [_result(json_object(replace(reply, content=line)), today) for line in reply.content.splitlines() if line]


def _result(body: Mapping[str, Any], today: float) -> JobResult:
    index = whole(body, "index")
    if body.get("error") is None:
        return JobResult(index, score_result(body, index), text(body, "model_version"), None)
    error = table(body["error"], "error")
    status = error.get("status")
    if not isinstance(status, int):
        raise InvalidReply(f"the error of row {index} has no status: {error!r}")
    found = problem(Reply(status, "", {}, json.dumps(error).encode()), today)
    return JobResult(index, None, None, found.at(index))
