"""What a client asks a server about itself, written once for sync and async callers."""

from __future__ import annotations

from urllib.parse import quote

import httpx

from karat_client import _replies
from karat_client._effects import Deadline, Operation, Send, send, wait
from karat_client._requests import Caller
from karat_client.errors import ConnectionFailed, InvalidReply, ModelsFailed, TimeoutPassed
from karat_client.server import Health, ModelCard

POLL_SECONDS = 0.5
"""How often `wait_ready` asks."""


def models(caller: Caller, timeout: float | None) -> Operation[list[ModelCard]]:
    """Every model of the server."""
    reply = yield from caller.exchange(timeout).request("GET", "/v1/models")
    return _replies.model_cards(_replies.json_object(reply))


def model(caller: Caller, name: str, timeout: float | None) -> Operation[ModelCard]:
    """One model of the server."""
    reply = yield from caller.exchange(timeout).request("GET", f"/v1/models/{quote(name, safe='')}")
    return _replies.model_card(_replies.json_object(reply))


def health(caller: Caller, timeout: float | None) -> Operation[Health]:
    """How far the server has come; asks once."""
    return (yield from _health(caller.deadline(timeout)))


def wait_ready(caller: Caller, timeout: float | None) -> Operation[Health]:
    """Asks until every model has warmed up. A server that isn't there yet is waited for, too."""
    deadline = caller.deadline(timeout)
    last: Exception | None = None
    while True:
        try:
            found = yield from _health(deadline)
        except (ConnectionFailed, InvalidReply) as error:
            # Before karat listens, whatever stands in front of it answers with pages of its own.
            last, status = error, str(error)
        else:
            last, status = None, found.status
            if found.status == "ready":
                return found
            if found.status == "failed":
                raise ModelsFailed(f"no model could be loaded ({', '.join(found.models)}); models() says why")
        if deadline.remaining() <= POLL_SECONDS:
            raise TimeoutPassed(f"the server was not ready in time: {status}") from last
        yield from wait(POLL_SECONDS)


def _health(deadline: Deadline) -> Operation[Health]:
    try:
        reply = yield from send(Send("GET", "/health/ready", deadline))
    except httpx.TransportError as error:
        raise ConnectionFailed(f"the server can't be reached: {error or type(error).__name__}") from error
    return _replies.health(_replies.json_object(reply))
