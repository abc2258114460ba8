"""Everything that can go wrong, as types: a score that can't be had is an exception, never a 0 or a NaN."""

from __future__ import annotations


class KaratError(Exception):
    """Base of all errors of this package."""


class InvalidInput(KaratError, ValueError):
    """An input that can't be sent, such as an image part; no request was made.

    `index` is the input's place in the caller's list, counted from 0.
    """

    def __init__(self, index: int, detail: str) -> None:
        super().__init__(index, detail)
        self.index = index
        self.detail = detail

    def __str__(self) -> str:
        return f"input {self.index}: {self.detail}"


class ConnectionFailed(KaratError, ConnectionError):
    """No reply came, in any of the attempts. Its cause is httpx's error of the last one."""


class TimeoutPassed(KaratError, TimeoutError):
    """The call's total time passed. Its cause is what went wrong in the last attempt, if one ended."""


class InvalidReply(KaratError):
    """A reply that isn't what karat sends, such as a proxy's page or a score that isn't a finite number."""


class VersionsDiffer(KaratError):
    """The parts of one call were scored by different model versions, so their rewards can't be compared.

    That happens when replicas behind one address hold different models, for longer than the call's timeout: a
    model that is replaced meanwhile is waited for.
    """

    def __init__(self, versions: tuple[str, ...]) -> None:
        super().__init__(versions)
        self.versions = versions

    def __str__(self) -> str:
        return f"one call was scored by several model versions: {', '.join(self.versions)}; score again"


class ModelsFailed(KaratError):
    """The server says that no model could be loaded; waiting longer doesn't help."""


class Problem(KaratError):
    """An error reply: problem details (RFC 9457), or any other error status with its text as the detail."""

    def __init__(
        self,
        *,
        type: str,  # noqa: A002 - the field's name in RFC 9457
        title: str,
        status: int,
        detail: str,
        index: int | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.type = type
        """The kind of problem, such as `urn:karat:problem:too-long`; `about:blank` when it isn't karat's."""
        self.title = title
        """The kind of problem in words."""
        self.status = status
        """The HTTP status."""
        self.detail = detail
        """What is wrong and what to change, as the server says it."""
        self.index = index
        """Which input is at fault, counted from 0 in the caller's list, if one is."""
        self.retry_after = retry_after
        """After how many seconds the server wants to be asked again, if it says so."""
        self.request_id = request_id
        """The request's id, for the server's log."""

    def __str__(self) -> str:
        where = "" if self.index is None else f" (input {self.index} of the call)"
        return f"{self.title}: {self.detail}{where}"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self._fields())

    def at(self, index: int) -> Problem:
        """The same problem with another index: a place in the caller's list instead of in one request."""
        return type(self)(**{**self._fields(), "index": index})  # type: ignore[arg-type]

    def _fields(self) -> dict[str, object]:
        names = ("type", "title", "status", "detail", "index", "retry_after", "request_id")
        return {name: getattr(self, name) for name in names}


class RequestRefused(Problem):
    """The request itself is at fault (4xx other than 429): repeating it doesn't help."""


class MalformedJson(RequestRefused):
    """The body is not JSON."""


class InvalidRequest(RequestRefused):
    """The request can't be scored as it is."""


class SampleTooLong(RequestRefused):
    """A sample has more tokens than the model takes, and the truncation policy refuses to cut it."""


class TooManyInputs(RequestRefused):
    """One request has more inputs than the server takes."""


class BodyTooLarge(RequestRefused):
    """One request has more bytes than the server takes."""


class BodyTooSlow(RequestRefused):
    """The request's body took too long to arrive (408)."""


class UnknownModel(RequestRefused):
    """The server has no model of that name."""


class OtherJob(RequestRefused):
    """A job's `idempotency_key` is that of another job, whose inputs or options are others."""


class UnknownRoute(RequestRefused):
    """The server has no such route: the URL is wrong or the server is older than this client."""


class WrongMethod(RequestRefused):
    """The route doesn't take that HTTP method."""


class NotLetIn(RequestRefused):
    """The server doesn't let the request in: a page may not use it, or it was asked for by another name (403)."""


class KeyMissing(RequestRefused):
    """The server wants a key, and got none that it knows (401): set `api_key`."""


class KeyForbids(RequestRefused):
    """The key may not use the model, or may not change what is served (403)."""


class Overloaded(Problem):
    """Too much is waiting (429)."""


class OutOfTokens(Overloaded):
    """The key has used up its tokens for now (429); `retry_after` says when it has some again."""


class ServerFailed(Problem):
    """The server is at fault (5xx)."""


class ModelUnavailable(ServerFailed):
    """The model is loading, failed to load, or the server is stopping (503)."""


class DeadlinePassed(ServerFailed):
    """The server gave the request up because its time had passed (504)."""


class StateFull(ServerFailed):
    """The server has no room on its disk for what it is to keep (507)."""


class ModelFailed(ServerFailed):
    """The model failed in its forward pass (500)."""


class InternalError(ServerFailed):
    """The server failed (500)."""


PROBLEM_TYPES: dict[str, type[Problem]] = {
    f"urn:karat:problem:{word}": kind
    for word, kind in {
        "malformed-json": MalformedJson,
        "invalid-request": InvalidRequest,
        "too-long": SampleTooLong,
        "too-many-inputs": TooManyInputs,
        "body-too-large": BodyTooLarge,
        "body-too-slow": BodyTooSlow,
        "unknown-model": UnknownModel,
        "other-job": OtherJob,
        "unknown-route": UnknownRoute,
        "wrong-method": WrongMethod,
        "model-unavailable": ModelUnavailable,
        "forbidden": NotLetIn,
        "no-key": KeyMissing,
        "key-forbids": KeyForbids,
        "out-of-tokens": OutOfTokens,
        "overloaded": Overloaded,
        "deadline-passed": DeadlinePassed,
        "state-full": StateFull,
        "model-failed": ModelFailed,
        "internal": InternalError,
    }.items()
}
"""The exception of each problem type. A type that isn't here becomes the exception of its status."""


def problem_class(problem_type: str, status: int) -> type[Problem]:
    """The exception for a problem: by its type, else by its status."""
    known = PROBLEM_TYPES.get(problem_type)
    if known is not None:
        return known
    if status == 429:
        return Overloaded
    if 400 <= status < 500:
        return RequestRefused
    return ServerFailed if status >= 500 else Problem


def _rebuild(kind: type[Problem], fields: dict[str, object]) -> Problem:
    return kind(**fields)  # type: ignore[arg-type]
