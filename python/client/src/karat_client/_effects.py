"""What an operation asks of the world, so that its logic is written once for sync and async callers.

An operation is a generator that yields effects and is sent their outcomes; `_drivers` carries them out, with
blocking calls or with awaits.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Deadline:
    """The moment at which a call gives up, on a clock that only goes forward."""

    clock: Callable[[], float]
    end: float

    @classmethod
    def after(cls, seconds: float, clock: Callable[[], float]) -> Deadline:
        """A deadline that many seconds from now."""
        return cls(clock, clock() + seconds)

    def remaining(self) -> float:
        """Seconds until the deadline; 0 or less when it has passed."""
        return self.end - self.clock()


@dataclass(frozen=True)
class Send:
    """Sends a request once; its outcome is a `Reply` or an `httpx.TransportError`."""

    method: str
    path: str
    deadline: Deadline
    body: Callable[[float], bytes] | None = None
    """Builds the body when the request is about to leave, from the seconds that remain then."""
    prefix: str | None = None
    """A digest of the prompt, by which balancers send equal prompts to equal replicas."""
    idempotency_key: str | None = None
    """What names a request that changes something, so that sending it again doesn't do it again."""
    unread: bool = False
    """Leaves the content of a reply with a status below 300 unread, in `Reply.unread`."""


@dataclass(frozen=True)
class Wait:
    """Lets time pass."""

    seconds: float


@dataclass(frozen=True)
class Together:
    """Runs operations side by side; its outcome is the list of theirs, in the same order.

    The first failure ends the others.
    """

    operations: Sequence[Operation[Any]]


@dataclass(frozen=True)
class Reply:
    """An HTTP reply that was read to its end, unless `unread` holds its content."""

    status: int
    reason: str
    headers: Mapping[str, str]
    content: bytes
    unread: Any = None
    """The driver's `SyncContent` or `AsyncContent`, which must be closed."""


Effect: TypeAlias = Send | Wait | Together
Operation: TypeAlias = Generator[Effect, Any, T]


def send(request: Send) -> Operation[Reply]:
    """Sends once. Raises httpx.TransportError when no reply comes."""
    reply: Reply = yield request
    return reply


def wait(seconds: float) -> Operation[None]:
    """Lets time pass."""
    yield Wait(seconds)


def together(operations: Sequence[Operation[T]]) -> Operation[list[T]]:
    """Runs operations side by side; raises what the first to fail raises."""
    if len(operations) == 1:
        return [(yield from operations[0])]
    outcomes: list[T] = yield Together(operations)
    return outcomes
