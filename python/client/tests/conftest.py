"""What the tests share."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from in_memory import Clock, Server
from karat_client import AsyncClient, Client


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def client(server: Server, clock: Clock) -> Client:
    return Client("http://karat", "m", transport=httpx.MockTransport(server), timing=clock.timing())


@pytest.fixture
def async_client(server: Server, clock: Clock) -> AsyncClient:
    return AsyncClient("http://karat", "m", transport=httpx.MockTransport(server), timing=clock.timing())


@pytest.fixture
def in_memory(server: Server, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Lets every client that is made, by callables too, talk to the server in memory."""
    transport = httpx.MockTransport(server)
    for kind in (httpx.Client, httpx.AsyncClient):
        original = kind.__init__

        def patched(self: Any, *, original: Any = original, **options: Any) -> None:
            original(self, **{**options, "transport": transport})

        monkeypatch.setattr(kind, "__init__", patched)
    return server
