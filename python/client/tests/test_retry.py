"""What is sent again, after how long, and what a failure looks like; time passes only in waits."""

from __future__ import annotations

import asyncio
import pickle
import threading

import httpx
import pytest

from in_memory import Clock, Server, problem
from karat_client import AsyncClient, Client, Problem, Retry, errors


def made(server: Server, clock: Clock, retry: Retry, timeout: float = 300.0) -> Client:
    transport = httpx.MockTransport(server)
    return Client("http://karat", "m", transport=transport, timing=clock.timing(), retry=retry, timeout=timeout)


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("slow"),
        httpx.ReadError("reset"),
        httpx.RemoteProtocolError("closed"),
        httpx.Response(502, text="bad gateway"),
        problem(503, "model-unavailable", "loading"),
        httpx.Response(504, text="gateway timeout"),
        problem(429, "overloaded", "too much waits"),
    ],
)
def test_passing_failures_are_sent_again(
    client: Client, server: Server, clock: Clock, failure: httpx.Response | Exception
) -> None:
    server.before = [failure, failure]
    assert len(client.score(texts=["a"]).rewards) == 1
    assert len(server.requests) == 3
    assert clock.pauses == [0.125, 0.25]


def test_the_async_client_sends_again_too(async_client: AsyncClient, server: Server, clock: Clock) -> None:
    server.before = [httpx.ConnectError("refused"), problem(429, "overloaded", "wait", retry_after="3")]
    assert len(asyncio.run(async_client.score(texts=["a"])).rewards) == 1
    assert clock.pauses == [0.125, 3.0]


@pytest.mark.parametrize(
    ("status", "word", "kind"),
    [
        (400, "malformed-json", errors.MalformedJson),
        (422, "invalid-request", errors.InvalidRequest),
        (422, "too-long", errors.SampleTooLong),
        (422, "too-many-inputs", errors.TooManyInputs),
        (413, "body-too-large", errors.BodyTooLarge),
        (404, "unknown-model", errors.UnknownModel),
        (404, "unknown-route", errors.UnknownRoute),
        (405, "wrong-method", errors.WrongMethod),
        (500, "model-failed", errors.ModelFailed),
        (500, "internal", errors.InternalError),
        (418, "brewed-later", errors.RequestRefused),
        (500, "invented-later", errors.ServerFailed),
    ],
)
def test_final_problems_are_raised_at_once_as_their_type(
    client: Client, server: Server, clock: Clock, status: int, word: str, kind: type[Problem]
) -> None:
    server.before = [problem(status, word, "change this")]
    with pytest.raises(Problem) as raised:
        client.score(texts=["a"])
    assert type(raised.value) is kind
    assert raised.value.type == f"urn:karat:problem:{word}"
    assert (raised.value.status, raised.value.title, raised.value.detail) == (status, word, "change this")
    assert raised.value.request_id == "id-9"
    assert len(server.requests) == 1
    assert clock.pauses == []


def test_an_error_page_of_a_proxy_keeps_its_words(client: Client, server: Server) -> None:
    server.before = [httpx.Response(403, text="<h1>no entry</h1>")]
    with pytest.raises(errors.RequestRefused) as raised:
        client.score(texts=["a"])
    assert raised.value.type == "about:blank"
    assert raised.value.title == "HTTP 403 Forbidden"
    assert raised.value.detail == "<h1>no entry</h1>"


def test_a_redirect_is_an_error_and_not_a_score(client: Client, server: Server) -> None:
    server.before = [httpx.Response(302, headers={"location": "http://elsewhere/"})]
    with pytest.raises(Problem) as raised:
        client.score(texts=["a"])
    assert raised.value.status == 302


def test_pauses_grow_up_to_their_limit(server: Server, clock: Clock) -> None:
    clock.jitter = 1.0
    client = made(server, clock, Retry(attempts=7, first=0.5, factor=3, longest=10))
    server.before = [httpx.ReadError("reset")] * 6
    client.score(texts=["a"])
    assert clock.pauses == [0.5, 1.5, 4.5, 10, 10, 10]


def test_half_of_a_pause_is_chance() -> None:
    retry = Retry(first=4)
    assert [retry.pause(1, None, jitter) for jitter in (0.0, 0.5, 1.0)] == [2, 3, 4]


def test_attempts_end(server: Server, clock: Clock) -> None:
    client = made(server, clock, Retry(attempts=3))
    server.before = [httpx.ConnectError("refused")] * 5
    with pytest.raises(errors.ConnectionFailed, match="3 attempts: refused") as raised:
        client.score(texts=["a"])
    assert isinstance(raised.value.__cause__, httpx.ConnectError)
    assert len(server.requests) == 3


def test_a_server_that_stays_unavailable_is_told_as_it_says(server: Server, clock: Clock) -> None:
    client = made(server, clock, Retry(attempts=2))
    server.before = [problem(503, "model-unavailable", "m failed to load")] * 2
    with pytest.raises(errors.ModelUnavailable, match="m failed to load"):
        client.score(texts=["a"])


def test_what_the_server_asks_for_is_waited(server: Server, clock: Clock) -> None:
    client = made(server, clock, Retry(attempts=1))
    # Patience that the server asks for is no failed attempt; a date counts from the clock's 1970.
    server.before = [
        problem(429, "overloaded", "wait", retry_after=after) for after in ("7", "7", "Thu, 01 Jan 1970 00:00:30 GMT")
    ]
    assert len(client.score(texts=["a"]).rewards) == 1
    assert clock.pauses == [7, 7, 30]


def test_clients_who_were_refused_together_come_back_apart(server: Server, clock: Clock) -> None:
    clock.jitter = 1.0
    server.before = [problem(429, "overloaded", "wait", retry_after="10")]
    made(server, clock, Retry()).score(texts=["a"])
    assert clock.pauses == [11]


def test_a_wait_beyond_the_timeout_is_not_begun(server: Server, clock: Clock) -> None:
    client = made(server, clock, Retry(), timeout=5)
    server.before = [problem(429, "overloaded", "wait", retry_after="60")]
    with pytest.raises(errors.TimeoutPassed) as raised:
        client.score(texts=["a"])
    assert isinstance(raised.value.__cause__, errors.Overloaded)
    assert clock.pauses == []


def test_the_timeout_bounds_all_attempts_together(server: Server, clock: Clock) -> None:
    client = made(server, clock, Retry(attempts=1000, first=1, factor=1), timeout=10)
    server.before = [httpx.ReadError("reset")] * 1000
    with pytest.raises(errors.TimeoutPassed) as raised:
        client.score(texts=["a"])
    assert isinstance(raised.value.__cause__, errors.ConnectionFailed)
    assert sum(clock.pauses) < 10
    # Each attempt tells the server what is left.
    left = [request["timeout_ms"] for request in server.requests]
    assert left == [10_000 - 500 * attempt for attempt in range(20)]


def test_a_deadline_that_the_server_saw_pass_is_a_timeout(server: Server, clock: Clock) -> None:
    def late(request: httpx.Request) -> httpx.Response:
        clock.now += 300
        return problem(504, "deadline-passed", "the timeout passed")

    server.before = [late]
    with pytest.raises(errors.TimeoutPassed) as raised:
        made(server, clock, Retry()).score(texts=["a"])
    assert isinstance(raised.value.__cause__, errors.DeadlinePassed)
    assert isinstance(raised.value, TimeoutError)


def join_workers() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("karat-client"):
            thread.join()


def test_after_a_failure_no_more_requests_are_begun(server: Server, clock: Clock) -> None:
    transport = httpx.MockTransport(server)
    client = Client("http://karat", "m", transport=transport, timing=clock.timing(), max_inputs=1, max_concurrency=1)
    raised = threading.Event()

    def wait_for_the_failure(request: httpx.Request) -> httpx.Response:
        raised.wait()
        return problem(404, "unknown-model", "there is no model m")

    server.before = [problem(404, "unknown-model", "there is no model m"), wait_for_the_failure]
    with pytest.raises(errors.UnknownModel):
        client.score(texts=[str(number) for number in range(100)])
    raised.set()
    join_workers()
    assert len(server.requests) <= 2


def test_after_a_failure_what_is_on_its_way_is_not_sent_again(server: Server, clock: Clock) -> None:
    transport = httpx.MockTransport(server)
    client = Client("http://karat", "m", transport=transport, timing=clock.timing(), max_inputs=1)
    both_sent, raised = threading.Barrier(2), threading.Event()

    def fail(request: httpx.Request) -> httpx.Response:
        both_sent.wait()
        return problem(404, "unknown-model", "there is no model m")

    def be_unavailable_after_that(request: httpx.Request) -> httpx.Response:
        both_sent.wait()
        raised.wait()
        return problem(503, "model-unavailable", "stopping")

    server.before = [fail, be_unavailable_after_that]
    with pytest.raises(errors.UnknownModel):
        client.score(texts=["a", "b"])
    raised.set()
    join_workers()
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "error",
    [
        errors.SampleTooLong(type="t", title="a", status=422, detail="b", index=3, retry_after=1.0, request_id="r"),
        errors.InvalidInput(4, "an image"),
        errors.VersionsDiffer(("a", "b")),
        errors.TimeoutPassed("late"),
    ],
)
def test_errors_travel_between_processes(error: errors.KaratError) -> None:
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


@pytest.mark.parametrize("retry", [{"attempts": 0}, {"factor": 0.5}, {"first": -1.0}])
def test_a_policy_that_makes_no_sense_is_refused(retry: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Retry"):
        Retry(**retry)  # type: ignore[arg-type]
