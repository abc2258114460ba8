"""Reads what the server says of training runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from karat_client._replies import entries, number_or_none, table, text, whole
from karat_client.errors import InvalidReply
from karat_client.runs import OutcomesTold, Run, RunModel, Signal


def run(body: Mapping[str, Any]) -> Run:
    """One run."""
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


def outcomes_told(body: Mapping[str, Any]) -> OutcomesTold:
    """What became of outcomes."""
    unknown = entries(body, "unknown")
    if not all(isinstance(place, int) and not isinstance(place, bool) for place in unknown):
        raise InvalidReply(f"unknown is no list of places but {unknown!r}")
    return OutcomesTold(whole(body, "accepted"), whole(body, "repeated"), tuple(unknown))
