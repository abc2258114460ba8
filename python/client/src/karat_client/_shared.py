"""Clients for callables that are pickled, forked and called from many threads and event loops."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
from collections.abc import AsyncGenerator, Callable, MutableMapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias, TypeVar
from weakref import WeakKeyDictionary, finalize

from karat_client.async_client import AsyncClient
from karat_client.client import Client
from karat_client.errors import ConnectionFailed, ServerFailed
from karat_client.options import Settings
from karat_client.results import PartialScores

T = TypeVar("T")

LOGGER = logging.getLogger("karat_client")


class SharedClient:
    """One client a process, made on first use. Pickles as its settings."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._process: int | None = None
        self._client: Client | None = None

    def get(self) -> Client:
        """This process's client. A forked process gets its own: connections can't be shared."""
        with self._lock:
            if self._client is None or self._process != os.getpid():
                self._client = Client(**vars(self.settings))
                self._process = os.getpid()
                finalize(self, _close, self._client, self._process)
            return self._client

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.settings,)


class SharedClients:
    """Clients of servers that hold the same model. Each process asks one of them, while it answers."""

    def __init__(self, settings: Sequence[Settings]) -> None:
        self._clients = [SharedClient(each) for each in settings]
        self._process: int | None = None
        self._place = 0

    def ask(self, call: Callable[[Client], T]) -> T:
        """What the call gives with one of the clients; the next is asked where a server is away or fails.

        Raises what the last of them raised.
        """
        if self._process != os.getpid():
            # Processes that start together don't all begin with the same server.
            self._process, self._place = os.getpid(), random.randrange(len(self._clients))
        for attempt in range(len(self._clients)):
            client = self._clients[self._place % len(self._clients)]
            try:
                return call(client.get())
            except (ConnectionFailed, ServerFailed) as error:
                if attempt == len(self._clients) - 1:
                    raise
                LOGGER.warning("%s doesn't answer, the next server is asked: %s", client.settings.url, error)
                self._place += 1
        raise AssertionError("there is at least one client")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ([client.settings for client in self._clients],)


def _close(client: Client, process: int) -> None:
    """Closes a client in the process that made it; elsewhere its connections are another's."""
    if os.getpid() == process:
        client.close()


class SharedAsyncClient:
    """One client an event loop, made on first use and closed with its loop. Pickles as its settings."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._clients: _ClientsByLoop = WeakKeyDictionary()

    def get(self) -> AsyncClient:
        """The running event loop's client: connections can't be shared between loops."""
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            client = AsyncClient(**vars(self.settings))
            self._clients[loop] = client, _closed_with_its_loop(client, loop, self._clients)
        return self._clients[loop][0]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.settings,)


_ClientsByLoop: TypeAlias = "MutableMapping[asyncio.AbstractEventLoop, tuple[AsyncClient, AsyncGenerator[None, None]]]"


def _closed_with_its_loop(
    client: AsyncClient, loop: asyncio.AbstractEventLoop, clients: _ClientsByLoop
) -> AsyncGenerator[None, None]:
    """What has to be kept as long as the client: a loop that ends, as by `asyncio.run`, closes it and so the client.

    A loop closes the generators that began in it while it still runs, and connections can be closed no later than that.
    """

    async def lifetime() -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            clients.pop(loop, None)
            await client.aclose()

    generator = lifetime()
    # Begins it, up to its first yield: nothing is awaited on the way, so that no loop is needed.
    with suppress(StopIteration):
        generator.__anext__().send(None)
    return generator


def rewards_or_none(scores: PartialScores) -> list[float | None]:
    """The rewards, None for what was refused, which is logged: None must not go unseen."""
    refusals = scores.refusals
    if refusals:
        LOGGER.warning(
            "%d of %d samples were not scored by %s; the first: %s",
            len(refusals),
            len(scores.results),
            scores.model,
            refusals[0],
        )
    return scores.rewards
