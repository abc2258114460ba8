"""What a client asks of training runs and how the replies are read, written once for sync and async callers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from karat_client._effects import Operation
from karat_client._replies import entries, json_object, number_or_none, table, text, whole
from karat_client._requests import Caller
from karat_client.errors import InvalidReply
from karat_client.runs import Outcome, OutcomesTold, Run, RunModel, Signal


def run(caller: Caller, name: str, timeout: float | None) -> Operation[Run]:
    """What the server knows of a training run."""
    reply = yield from caller.exchange(timeout).request("GET", f"/v1/runs/{quote(name, safe='')}")
    return _run(json_object(reply))


def configure_run(caller: Caller, name: str, config: Mapping[str, Any], timeout: float | None) -> Operation[None]:
    """Asks more of a training run than statistics."""
    body = json.dumps({part: value for part, value in config.items() if value is not None}, allow_nan=False).encode()
    yield from caller.exchange(timeout).request("PUT", f"/v1/runs/{quote(name, safe='')}", lambda _: body)


def add_outcomes(
    caller: Caller, name: str, outcomes: Iterable[Outcome], timeout: float | None
) -> Operation[OutcomesTold]:
    """Tells what came of samples that were scored."""
    told = [{"request": outcome.request, "index": outcome.index, "value": outcome.value} for outcome in outcomes]
    if not told:
        raise ValueError("there are no outcomes: the list is empty")
    path = f"/v1/runs/{quote(name, safe='')}/outcomes"
    body = json.dumps({"outcomes": told}, allow_nan=False).encode()
    reply = yield from caller.exchange(timeout).request("POST", path, lambda _: body)
    return _outcomes_told(json_object(reply))


def _run(body: Mapping[str, Any]) -> Run:
    models = tuple(_model(table(entry, "models")) for entry in entries(body, "models"))
    return Run(name=text(body, "run"), samples=whole(body, "samples"), models=models, report=body)


def _model(body: Mapping[str, Any]) -> RunModel:
    steps = entries(body, "steps")
    return RunModel(
        model=text(body, "model"),
        samples=whole(body, "samples"),
        latest=table(steps[-1], "steps") if steps else {},
        signals=tuple(_signal(table(entry, "signals")) for entry in entries(body, "signals")),
    )


def _signal(body: Mapping[str, Any]) -> Signal:
    reading = {} if body.get("reading") is None else table(body["reading"], "reading")
    return Signal(
        name=text(body, "signal"),
        firing=body.get("firing") is True,
        since_step=None if body.get("since_step") is None else whole(body, "since_step"),
        value=number_or_none(reading, "value"),
        low=number_or_none(reading, "low"),
        high=number_or_none(reading, "high"),
        limit=number_or_none(reading, "limit"),
    )


def _outcomes_told(body: Mapping[str, Any]) -> OutcomesTold:
    unknown = entries(body, "unknown")
    if not all(isinstance(place, int) and not isinstance(place, bool) for place in unknown):
        raise InvalidReply(f"unknown is no list of places but {unknown!r}")
    return OutcomesTold(whole(body, "accepted"), whole(body, "repeated"), tuple(unknown))
