"""Reads critiques: whole, or as server-sent events that come to the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from karat_client import _replies
from karat_client._effects import Reply
from karat_client.errors import InvalidReply
from karat_client.results import Critique, Critiques, CritiqueText


@dataclass(frozen=True)
class Wanted:
    """What was asked for, which a reply has to have."""

    critiques: int
    score: bool


class EventReader:
    """Puts server-sent events together out of pieces of any size.

    Lines end with a line feed, as karat writes them; what else Unicode takes for the end of a line is text.
    """

    def __init__(self) -> None:
        self.rest = b""
        """What came after the last whole line."""
        self._name = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[tuple[str, str]]:
        """The names and the data of the events that end in the next piece."""
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        for line in lines:
            field, _, value = line.removesuffix(b"\r").decode(errors="replace").partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                self._name = value
            elif field == "data":
                self._data.append(value)
            elif not line.strip(b"\r"):
                if self._data:
                    yield self._name or "message", "\n".join(self._data)
                self._name, self._data = "", []


class CritiqueReader:
    """Follows a stream of events until it is complete."""

    def __init__(self, today: float, wanted: Wanted) -> None:
        self._today = today
        self._wanted = wanted
        self._events = EventReader()
        self._body: dict[str, Any] = {"critiques": []}
        self.result: Critiques | None = None
        """Everything, once all has come."""

    def feed(self, chunk: bytes) -> Iterator[CritiqueText]:
        """The letters in the next piece of the stream.

        Raises the Problem that the server tells of, and InvalidReply for what isn't an event of karat's.
        """
        for name, data in self._events.feed(chunk):
            if name not in ("token", "critique", "score", "done", "error"):
                continue
            body = _replies.json_object(Reply(200, "", {}, data.encode()))
            if name == "token":
                yield CritiqueText(_replies.whole(body, "index"), _replies.text(body, "text"))
            elif name == "critique":
                self._body["critiques"].append(body)
            elif name == "score":
                self._body.update(body)
            elif name == "done":
                self._body["critiques"].sort(key=lambda critique: _replies.whole(critique, "index"))
                self.result = critiques({**self._body, **body}, self._wanted)
            elif name == "error":
                status = body.get("status")
                reply = Reply(status if isinstance(status, int) else 500, "", {}, data.encode())
                raise _replies.problem(reply, self._today)

    def rest(self) -> str:
        """What came last and is no whole event, as the end of a sentence: of a proxy, its page."""
        start = self._events.rest[:200].decode(errors="replace").strip()
        return f"; the last was: {start}" if start else ""


def critiques(body: Mapping[str, Any], wanted: Wanted) -> Critiques:
    """What `/v1/critique` says in all. Raises InvalidReply unless that is what was asked for."""
    written = tuple(_critique(_replies.table(entry, "critiques")) for entry in _replies.entries(body, "critiques"))
    numbers = [critique.index for critique in written]
    if numbers != list(range(wanted.critiques)):
        raise InvalidReply(f"{wanted.critiques} critiques were asked for, and the reply has {numbers}")
    scores = _replies.entries(body, "scores") if "scores" in body else []
    reward = _replies.number_or_none(body, "reward")
    if wanted.score and "reward" not in body:
        raise InvalidReply("a score was asked for, and the reply has none")
    if reward is not None:
        # A reward counts for nothing without the model that gave it.
        _replies.text(body, "scorer_version")
    return Critiques(
        model=_replies.text(body, "model"),
        model_version=_replies.text(body, "model_version"),
        critiques=written,
        reward=reward,
        rating=_replies.number_or_none(body, "rating"),
        scores=tuple(_replies.score_result(entry, _replies.whole(entry, "index")) for entry in scores),
        scorer=_replies.text_or_none(body, "scorer"),
        scorer_version=_replies.text_or_none(body, "scorer_version"),
        prompt_tokens=_replies.whole(body, "prompt_tokens"),
        generated_tokens=_replies.whole(body, "generated_tokens"),
        request_id=_replies.text(body, "id"),
    )


def _critique(entry: Mapping[str, Any]) -> Critique:
    return Critique(
        index=_replies.whole(entry, "index"),
        text=_replies.text(entry, "text"),
        finish=_replies.text(entry, "finish"),
        tokens=_replies.whole(entry, "tokens"),
        rating=_replies.number_or_none(entry, "rating"),
    )
