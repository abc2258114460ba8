"""Critiques as they are written.

    with client.critique_stream("What is 1 + 1?", "It is blue.") as stream:
        for piece in stream:
            print(piece.text, end="")
        print(stream.result.reward)

Leaving the block early closes the connection, and the server stops writing. A critique that broke off never looks
complete: reading it raises.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

import httpx

from karat_client._critique import CritiqueReader, Wanted
from karat_client._drivers import AsyncContent, SyncContent
from karat_client._effects import Deadline
from karat_client.errors import ConnectionFailed, InvalidReply, TimeoutPassed
from karat_client.results import Critiques, CritiqueText

if TYPE_CHECKING:
    from typing_extensions import Self


class _Stream:
    """What is the same with and without awaits."""

    def __init__(self, deadline: Deadline, today: float, wanted: Wanted) -> None:
        self._deadline = deadline
        self._reader = CritiqueReader(today, wanted)

    @property
    def result(self) -> Critiques:
        """Everything. Raises ValueError before the stream was read to its end."""
        if self._reader.result is None:
            raise ValueError("the critique isn't complete; read the stream to its end first")
        return self._reader.result

    def _pieces(self, chunk: bytes) -> Iterator[CritiqueText]:
        if self._deadline.remaining() <= 0:
            raise TimeoutPassed("the critique was not complete within the call's timeout")
        return self._reader.feed(chunk)

    def _check_complete(self) -> None:
        if self._reader.result is None:
            raise InvalidReply(f"the critique broke off before its end{self._reader.rest()}")


class CritiqueStream(_Stream):
    """An iterator over the letters of critiques; opens when its `with` block is entered."""

    def __init__(self, deadline: Deadline, today: float, wanted: Wanted, connect: Callable[[], SyncContent]) -> None:
        super().__init__(deadline, today, wanted)
        self._connect = connect
        self._content: SyncContent | None = None

    def __enter__(self) -> Self:
        self._content = self._connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._content is not None:
            self._content.close()

    def __iter__(self) -> Iterator[CritiqueText]:
        if self._content is None:
            raise ValueError("enter the stream with a with block first")
        with _failures():
            for chunk in self._content.chunks(self._deadline):
                yield from self._pieces(chunk)
        self._check_complete()


class AsyncCritiqueStream(_Stream):
    """As `CritiqueStream`, for `async with` and `async for`."""

    def __init__(
        self, deadline: Deadline, today: float, wanted: Wanted, connect: Callable[[], Awaitable[AsyncContent]]
    ) -> None:
        super().__init__(deadline, today, wanted)
        self._connect = connect
        self._content: AsyncContent | None = None

    async def __aenter__(self) -> Self:
        self._content = await self._connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._content is not None:
            await self._content.close()

    async def __aiter__(self) -> AsyncIterator[CritiqueText]:
        if self._content is None:
            raise ValueError("enter the stream with an async with block first")
        with _failures():
            async for chunk in self._content.chunks(self._deadline):
                for piece in self._pieces(chunk):
                    yield piece
        self._check_complete()


@contextmanager
def _failures() -> Iterator[None]:
    """Says what a connection's failure means for who reads."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise TimeoutPassed("the critique was not complete within the call's timeout") from error
    except httpx.DecodingError as error:
        raise InvalidReply(f"the reply can't be decompressed: {error}") from error
    except httpx.TransportError as error:
        raise ConnectionFailed(f"the critique broke off: {error or type(error).__name__}") from error
