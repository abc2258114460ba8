"""One request until it is answered: attempts, pauses and the deadline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import httpx

from karat_client import _replies
from karat_client._effects import Deadline, Operation, Reply, Send, send, wait
from karat_client._timing import Timing
from karat_client.errors import ConnectionFailed, InvalidReply, KaratError, Problem, TimeoutPassed
from karat_client.retry import Retry

RETRIED_STATUSES = frozenset({429, 502, 503, 504})


@dataclass(frozen=True)
class Exchange:
    """How requests of one call are sent."""

    deadline: Deadline
    retry: Retry
    timing: Timing

    def request(
        self,
        method: str,
        path: str,
        body: Callable[[float], bytes] | None = None,
        *,
        prefix: str | None = None,
        idempotency_key: str | None = None,
        unread: bool = False,
    ) -> Operation[Reply]:
        """Sends until there is a reply with a status below 300, whose content may be left `unread`.

        Raises Problem for an error reply that is final, ConnectionFailed when no attempt got a reply, and
        TimeoutPassed when the deadline passes first.
        """
        attempt = Send(method, path, self.deadline, body, prefix, idempotency_key, unread)
        failures = 0
        failure: KaratError | None = None
        while True:
            if self.deadline.remaining() <= 0:
                raise _timeout(method, path, failure) from failure
            retry_after = None
            try:
                reply = yield from send(attempt)
            except httpx.TransportError as error:
                failure = _connection_failure(method, path, failures + 1, error)
                if isinstance(error, (httpx.LocalProtocolError, httpx.UnsupportedProtocol)):
                    raise failure from error
            except httpx.DecodingError as error:
                raise InvalidReply(f"the reply can't be decompressed: {error}") from error
            else:
                if reply.status < 300:
                    return reply
                problem = _replies.problem(reply, self.timing.today())
                if reply.status not in RETRIED_STATUSES:
                    raise problem
                failure = problem
                retry_after = problem.retry_after
            asked_to_wait = isinstance(failure, Problem) and failure.status == 429 and retry_after is not None
            if not asked_to_wait:
                failures += 1
            remaining = self.deadline.remaining()
            pause = self.retry.pause(failures, retry_after, self.timing.jitter())
            if remaining <= 0 or (failures < self.retry.attempts and pause >= remaining):
                raise _timeout(method, path, failure) from failure
            if failures >= self.retry.attempts:
                raise failure
            yield from wait(pause)


def _connection_failure(method: str, path: str, attempts: int, error: httpx.TransportError) -> ConnectionFailed:
    what = str(error) or type(error).__name__
    failure = ConnectionFailed(f"{method} {path} got no reply in {attempts} attempts: {what}")
    failure.__cause__ = error
    return failure


def _timeout(method: str, path: str, failure: KaratError | None) -> TimeoutPassed:
    last = "" if failure is None else f"; the last attempt: {failure}"
    return TimeoutPassed(f"{method} {path} was not answered within the call's timeout{last}")
