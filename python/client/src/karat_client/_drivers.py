"""Carries out the effects of operations: once with blocking calls, once with awaits.

Only what differs between the two is here. Attempts, parsing and splitting are in the operations.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for_futures
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar

import httpx

from karat_client._effects import Deadline, Effect, Operation, Reply, Send, Together, Wait
from karat_client._timing import Timing

T = TypeVar("T")

CONNECT_SECONDS = 10.0


class _Run(Generic[T]):
    """An operation on its way: takes the outcome of one effect and hands out the next."""

    def __init__(self, operation: Operation[T]) -> None:
        self._operation = operation
        self._resume: Callable[[], Effect] = lambda: next(operation)
        self.result: T

    def next_effect(self) -> Effect | None:
        """The next effect, or None when `result` is there. Raises what the operation raises."""
        try:
            return self._resume()
        except StopIteration as end:
            self.result = end.value
            return None

    def succeeded(self, outcome: Any) -> None:
        self._resume = lambda: self._operation.send(outcome)

    def failed(self, error: Exception) -> None:
        self._resume = lambda: self._operation.throw(error)


def _arguments(request: Send) -> dict[str, Any]:
    """What httpx is called with, at the moment when the request leaves."""
    remaining = request.deadline.remaining()
    if remaining <= 0:
        raise httpx.PoolTimeout("no connection became free in time")
    arguments: dict[str, Any] = {
        "method": request.method,
        "url": request.path,
        "timeout": httpx.Timeout(remaining, connect=min(CONNECT_SECONDS, remaining)),
    }
    headers: dict[str, str] = {}
    if request.body is not None:
        arguments["content"] = request.body(remaining)
        headers["content-type"] = "application/json"
    if request.prefix is not None:
        headers["x-karat-prefix"] = request.prefix
    if request.idempotency_key is not None:
        headers["idempotency-key"] = request.idempotency_key
    return {**arguments, "headers": headers}


def _reply(response: httpx.Response, unread: Any = None) -> Reply:
    content = b"" if unread else response.content
    return Reply(response.status_code, response.reason_phrase, response.headers, content, unread)


class SyncContent:
    """The content of a reply as it comes. It holds its place among the connections until it is closed."""

    def __init__(self, response: httpx.Response, release: Callable[[], None]) -> None:
        self._response = response
        self._release = release

    def chunks(self, deadline: Deadline) -> Iterator[bytes]:
        """Pieces of the content. Raises httpx.TransportError; a ReadTimeout at the deadline."""
        with _cut_at(deadline, self._response):
            try:
                yield from self._response.iter_bytes()
            except httpx.TransportError as error:
                if deadline.remaining() > 0:
                    raise
                raise httpx.ReadTimeout("the rest didn't come in time") from error

    def close(self) -> None:
        """Closes the connection, unless everything was read."""
        release, self._release = self._release, _nothing
        try:
            self._response.close()
        finally:
            release()


class AsyncContent:
    """As `SyncContent`, with awaits."""

    def __init__(self, response: httpx.Response, release: Callable[[], None]) -> None:
        self._response = response
        self._release = release

    async def chunks(self, deadline: Deadline) -> AsyncIterator[bytes]:
        """As `SyncContent.chunks`."""
        chunks = self._response.aiter_bytes()
        while True:
            try:
                yield await asyncio.wait_for(anext(chunks), max(0.0, deadline.remaining()))
            except StopAsyncIteration:
                return
            except asyncio.TimeoutError as error:
                raise httpx.ReadTimeout("the rest didn't come in time") from error

    async def close(self) -> None:
        """Closes the connection, unless everything was read."""
        release, self._release = self._release, _nothing
        try:
            await self._response.aclose()
        finally:
            release()


@contextmanager
def _cut_at(deadline: Deadline, response: httpx.Response) -> Iterator[None]:
    """Ends the connection at the deadline: httpx bounds each wait for bytes, not all of them together."""
    connection: Any = response.extensions.get("network_stream")

    def cut() -> None:
        with suppress(OSError):
            connection.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    alarm = threading.Timer(max(0.0, deadline.remaining()), cut)
    alarm.daemon = True
    if connection is not None:
        alarm.start()
    try:
        yield
    finally:
        alarm.cancel()


def _nothing() -> None:
    """What was released once isn't released again."""


class SyncDriver:
    """Runs operations with blocking calls; threads may share it."""

    def __init__(self, http: httpx.Client, timing: Timing, concurrency: int) -> None:
        self._http = http
        self._timing = timing
        self._concurrency = concurrency
        self._slots = threading.BoundedSemaphore(concurrency)

    def run(self, operation: Operation[T], stop: threading.Event | None = None) -> T:
        """Runs an operation to its end. `stop` abandons it between two effects."""
        stop = stop or threading.Event()
        run = _Run(operation)
        while (effect := run.next_effect()) is not None:
            if stop.is_set():
                operation.close()
                raise CancelledError
            try:
                outcome = self._perform(effect, stop)
            except Exception as error:
                run.failed(error)
            else:
                run.succeeded(outcome)
        return run.result

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def _perform(self, effect: Effect, stop: threading.Event) -> Any:
        if isinstance(effect, Send):
            return self._send(effect)
        if isinstance(effect, Wait):
            return self._timing.sleep(effect.seconds, stop)
        return self._together(effect)

    def _send(self, request: Send) -> Reply:
        if not self._slots.acquire(timeout=max(0.0, request.deadline.remaining())):
            raise httpx.PoolTimeout("no connection became free in time")
        content: SyncContent | None = None
        try:
            response = self._http.send(self._http.build_request(**_arguments(request)), stream=True)
            if request.unread and response.status_code < 300:
                content = SyncContent(response, self._slots.release)
            else:
                try:
                    response.read()
                finally:
                    response.close()
            return _reply(response, content)
        finally:
            if content is None:
                self._slots.release()

    def _together(self, effect: Together) -> list[Any]:
        stop = threading.Event()
        pool = ThreadPoolExecutor(min(len(effect.operations), self._concurrency), "karat-client")
        futures: list[Future[Any]] = []
        try:
            futures = [pool.submit(self.run, operation, stop) for operation in effect.operations]
            finished, _ = wait_for_futures(futures, return_when=FIRST_EXCEPTION)
            for future in futures:
                if future in finished:
                    future.result()
            return [future.result() for future in futures]
        finally:
            # After a failure nobody needs the rest: what waits ends at once, what is being sent is not waited for.
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


class AsyncDriver:
    """Runs operations with awaits, within one event loop."""

    def __init__(self, http: httpx.AsyncClient, timing: Timing, concurrency: int) -> None:
        self._http = http
        self._timing = timing
        self._slots = asyncio.Semaphore(concurrency)
        self._concurrency = concurrency

    async def run(self, operation: Operation[T]) -> T:
        """Runs an operation to its end."""
        run = _Run(operation)
        while (effect := run.next_effect()) is not None:
            try:
                outcome = await self._perform(effect)
            except Exception as error:
                run.failed(error)
            else:
                run.succeeded(outcome)
        return run.result

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def _perform(self, effect: Effect) -> Any:
        if isinstance(effect, Send):
            return await self._send(effect)
        if isinstance(effect, Wait):
            return await self._timing.sleep_async(effect.seconds)
        return await self._together(effect)

    async def _send(self, request: Send) -> Reply:
        try:
            return await asyncio.wait_for(self._attempt(request), request.deadline.remaining())
        except asyncio.TimeoutError as error:
            raise httpx.ReadTimeout("no reply came in time") from error

    async def _attempt(self, request: Send) -> Reply:
        await self._slots.acquire()
        content: AsyncContent | None = None
        try:
            response = await self._http.send(self._http.build_request(**_arguments(request)), stream=True)
            if request.unread and response.status_code < 300:
                content = AsyncContent(response, self._slots.release)
            else:
                try:
                    await response.aread()
                finally:
                    await response.aclose()
            return _reply(response, content)
        finally:
            if content is None:
                self._slots.release()

    async def _together(self, effect: Together) -> list[Any]:
        outcomes: list[Any] = [None] * len(effect.operations)
        waiting = iter(enumerate(effect.operations))

        async def work() -> None:
            for place, operation in waiting:
                outcomes[place] = await self.run(operation)

        workers = [asyncio.create_task(work()) for _ in range(min(len(effect.operations), self._concurrency))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return outcomes
