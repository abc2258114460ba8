"""Critiques, whole and as they are written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from in_memory import Clock, Server, problem, score_body
from karat_client import AsyncClient, Client, errors

WRITTEN = [
    {"index": 0, "text": "It is wrong.\u2028Rating: 2", "finish": "end", "tokens": 7, "rating": 2.0},
    {"index": 1, "text": "", "finish": "stop", "tokens": 0, "rating": None},
]
SCORED = {
    "reward": 0.25,
    "rating": 2.0,
    "scores": score_body(["It is wrong."])["results"],
    "scorer": "m",
    "scorer_version": "v1",
    "scoring": {"tokens": 9, "cached_tokens": 0},
}
SUMMARY = {"id": "id-1", "model": "m", "model_version": "v1", "prompt_tokens": 11, "generated_tokens": 7}


def event(name: str, body: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(body, ensure_ascii=False)}\n\n".encode()


LETTERS = [event("token", {"index": 0, "text": text}) for text in ("It is", " wrong.\u2028", "Rating: 2")]
# Critiques come in the order in which they are complete, and a comment keeps the connection open.
STREAM = [
    *LETTERS,
    b":\n\n",
    event("critique", WRITTEN[1]),
    event("critique", WRITTEN[0]),
    event("score", SCORED),
    event("done", SUMMARY),
]


class Content(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A reply's content in pieces, then perhaps a failure; knows whether it was closed."""

    def __init__(self, pieces: list[bytes], failure: Exception | None = None) -> None:
        self.pieces, self.failure, self.closed = pieces, failure, False

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces
        if self.failure:
            raise self.failure

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


def streamed(content: Content) -> httpx.Response:
    return httpx.Response(200, stream=content, headers={"content-type": "text/event-stream"})


def test_a_whole_critique(client: Client, server: Server) -> None:
    server.before = [httpx.Response(200, json={"critiques": WRITTEN, **SCORED, **SUMMARY})]
    found = client.critique("What is 1 + 1?", "It is blue.", critiques=2, temperature=0.7, stop=["END"], scorer="m")
    assert [(one.text, one.finish, one.rating) for one in found.critiques] == [
        ("It is wrong.\u2028Rating: 2", "end", 2.0),
        ("", "stop", None),
    ]
    assert (found.reward, found.rating, found.scorer, found.model_version) == (0.25, 2.0, "m", "v1")
    assert [score.index for score in found.scores] == [0]
    (request,) = server.requests
    assert (request["path"], request["prompt"], request["response"]) == (
        "/v1/critique",
        "What is 1 + 1?",
        "It is blue.",
    )
    assert (request["critiques"], request["temperature"], request["stop"]) == (2, 0.7, ["END"])
    assert "stream" not in request


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_stream_comes_to_the_same_however_it_is_cut(client: Client, server: Server, size: int) -> None:
    whole = b"".join(STREAM)
    content = Content([whole[at : at + size] for at in range(0, len(whole), size)])
    server.before = [streamed(content), httpx.Response(200, json={"critiques": WRITTEN, **SCORED, **SUMMARY})]
    with client.critique_stream("What is 1 + 1?", "It is blue.", critiques=2, temperature=1) as stream:
        with pytest.raises(ValueError, match="isn't complete"):
            _ = stream.result
        assert "".join(piece.text for piece in stream) == WRITTEN[0]["text"]
        assert stream.result == client.critique("What is 1 + 1?", "It is blue.", critiques=2, temperature=1)
    assert content.closed
    assert server.requests[0]["stream"] is True


def test_lines_of_windows_and_several_lines_of_data(client: Client, server: Server) -> None:
    pieces = [piece.replace(b"\n", b"\r\n") for piece in STREAM]
    pieces[0] = b'event: token\r\ndata: {"index": 0,\r\ndata: "text": "It is"}\r\n\r\n'
    server.before = [streamed(Content(pieces))]
    with client.critique_stream("Why?", "So.", critiques=2, temperature=1) as stream:
        assert [piece.text for piece in stream] == ["It is", " wrong.\u2028", "Rating: 2"]
        assert stream.result.reward == 0.25


def test_the_same_awaited(async_client: AsyncClient, server: Server) -> None:
    content = Content(STREAM)
    server.before = [streamed(content)]

    async def run() -> float | None:
        async with async_client, async_client.critique_stream("Why?", "So.", critiques=2, temperature=1) as stream:
            texts = [piece.text async for piece in stream]
            assert texts == ["It is", " wrong.\u2028", "Rating: 2"]
            return stream.result.reward

    assert asyncio.run(run()) == 0.25
    assert content.closed


def test_who_leaves_early_closes_the_connection(server: Server, clock: Clock) -> None:
    contents = [Content(STREAM), Content(STREAM)]
    server.before = [streamed(content) for content in contents]
    transport = httpx.MockTransport(server)
    # One place: the second stream gets it only when the first has given it back.
    with Client("http://karat", "m", transport=transport, timing=clock.timing(), max_concurrency=1) as client:
        for content in contents:
            with client.critique_stream("Why?", "So.", critiques=2, temperature=1) as stream:
                assert next(iter(stream)).text == "It is"
            assert content.closed


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (Content(STREAM[:-1]), errors.InvalidReply),
        (Content(LETTERS, httpx.ReadError("reset")), errors.ConnectionFailed),
        (Content(LETTERS, httpx.ReadTimeout("late")), errors.TimeoutPassed),
        (Content([b"event: token\ndata: <html>\n\n"]), errors.InvalidReply),
        (Content([b"<html>a proxy's page</html>"]), errors.InvalidReply),
        (Content([*STREAM[:4], *STREAM[5:]]), errors.InvalidReply),
        (Content([*STREAM[:6], *STREAM[7:]]), errors.InvalidReply),
        (Content([*STREAM[:6], event("score", {"reward": 0.5}), *STREAM[7:]]), errors.InvalidReply),
    ],
)
def test_what_broke_off_never_looks_complete(
    client: Client, server: Server, content: Content, kind: type[Exception]
) -> None:
    server.before = [streamed(content)]
    with client.critique_stream("Why?", "So.", critiques=2, temperature=1) as stream:
        with pytest.raises(kind):
            list(stream)
        with pytest.raises(ValueError, match="isn't complete"):
            _ = stream.result
    # What was begun is never sent again: the user has seen the first letters.
    assert len(server.requests) == 1
    assert content.closed


def test_an_error_amid_the_stream_is_the_servers_problem(client: Client, server: Server) -> None:
    detail = {"type": "urn:karat:problem:deadline-passed", "title": "late", "status": 504, "detail": "too late"}
    server.before = [streamed(Content([*LETTERS, event("error", detail)]))]
    with (
        client.critique_stream("Why?", "So.", critiques=2, temperature=1) as stream,
        pytest.raises(errors.DeadlinePassed, match="too late"),
    ):
        list(stream)


def test_a_refusal_before_the_first_letter(client: Client, server: Server, clock: Clock) -> None:
    busy = problem(429, "overloaded", "16 requests wait", retry_after="3")
    server.before = [busy, streamed(Content(STREAM)), problem(422, "invalid-request", "the model writes none")]
    with client.critique_stream("Why?", "So.", critiques=2, temperature=1) as stream:
        assert len(list(stream)) == 3
    assert clock.pauses[0] >= 3
    with pytest.raises(errors.InvalidRequest), client.critique_stream("Why?", "So.", critiques=2, temperature=1):
        pass


def test_the_calls_time_bounds_the_stream(client: Client, server: Server, clock: Clock) -> None:
    server.before = [streamed(Content(STREAM))]
    with client.critique_stream("Why?", "So.", critiques=2, temperature=1, timeout=5) as stream:
        letters = iter(stream)
        assert next(letters).text == "It is"
        clock.now += 6
        with pytest.raises(errors.TimeoutPassed):
            next(letters)


def test_options_that_make_no_sense(client: Client) -> None:
    with pytest.raises(ValueError, match="stop is a list"):
        client.critique("Why?", "So.", stop="END")
    with pytest.raises(TypeError, match="unknown options: colour"):
        client.critique("Why?", "So.", colour="red")  # type: ignore[call-arg]
