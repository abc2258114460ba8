"""A call's inputs as requests: how they are gathered, split, sent side by side, and put together again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

from karat_client import _replies
from karat_client._effects import Deadline, Operation, together, wait
from karat_client._exchange import Exchange
from karat_client._timing import Timing
from karat_client.errors import InvalidInput, InvalidReply, Problem, RequestRefused, VersionsDiffer
from karat_client.inputs import Input, Messages, Prompt, Response, dialogues, pairs, prefix, rendered
from karat_client.options import PartOptions, ScoreOptions, Settings, check_timeout, request_fields
from karat_client.results import Refusal, Usage

R = TypeVar("R")


@dataclass(frozen=True)
class Caller:
    """On whose behalf operations run."""

    settings: Settings
    timing: Timing

    def exchange(self, timeout: float | None) -> Exchange:
        """How the requests of one call are sent; the clock of its timeout starts now."""
        return Exchange(self.deadline(timeout), self.settings.retry, self.timing)

    def deadline(self, timeout: float | None) -> Deadline:
        """When a call that starts now gives up."""
        seconds = self.settings.timeout if timeout is None else check_timeout(timeout)
        return Deadline.after(seconds, self.timing.clock)


def gather_inputs(
    *,
    prompts: Prompt | Iterable[Prompt] | None,
    responses: Iterable[Response] | None,
    messages: Iterable[Messages] | None,
    texts: Iterable[str] | None,
) -> list[Input | InvalidInput]:
    """The inputs of a call, from the one shape in which they were given.

    Raises ValueError unless it is exactly one, and when there are no inputs.
    """
    if isinstance(responses, str) or isinstance(texts, str):
        raise ValueError("responses and texts are lists; put a single one into a list")
    shapes: list[Callable[[], list[Input | InvalidInput]]] = []
    if prompts is not None and responses is not None:
        shapes.append(lambda: pairs(prompts, responses))
    if messages is not None:
        shapes.append(lambda: dialogues(messages))
    if texts is not None:
        shapes.append(lambda: rendered(texts))
    if len(shapes) != 1 or (prompts is None) != (responses is None):
        raise ValueError("pass exactly one of prompts with responses, messages, and texts")
    inputs = shapes[0]()
    if not inputs:
        raise ValueError("there is nothing to score: the list is empty")
    return inputs


@dataclass(frozen=True)
class Route(Generic[R]):
    """A route that takes a list of inputs and answers with a list of results."""

    path: str
    read: Callable[[Mapping[str, Any], int], R]
    """Makes a result of an entry of the reply and its place in the caller's list."""
    list_name: str = "inputs"


@dataclass(frozen=True)
class Part(Generic[R]):
    """What one request of a call brought, or all of them."""

    model: str | None
    version: str | None
    results: list[R]
    usage: Usage
    request_ids: tuple[str, ...]


Scorer = Callable[[Exchange, Mapping[str, Any], Sequence[Input]], "Operation[Part[R]]"]
Whole: TypeAlias = "tuple[str, str, tuple[R, ...], Usage, tuple[str, ...]]"


def all_results(
    route: Route[R],
    caller: Caller,
    inputs: Sequence[Input | InvalidInput],
    options: ScoreOptions | PartOptions,
    *,
    extra: Mapping[str, Any] | None = None,
    most: int | None = None,
) -> Operation[Whole[R]]:
    """Every input's result with the model and its version, or the first error; at most `most` inputs a request."""
    for entry in inputs:
        if isinstance(entry, InvalidInput):
            raise entry
    fields = {**request_fields(options, caller.settings.model), **(extra or {})}
    sendable = [entry for entry in inputs if isinstance(entry, Input)]
    chunks = split(sendable, most or caller.settings.max_inputs, caller.settings.max_bytes)
    if extra and "cuts" in extra:
        chunks = [sendable]
    found = yield from collect(caller, chunks, fields, options.get("timeout"), partial(_all_of, route))
    if found.model is None or found.version is None or len(found.results) != len(inputs):
        raise InvalidReply(f"{len(found.results)} of {len(inputs)} inputs were scored")
    return found.model, found.version, tuple(found.results), found.usage, found.request_ids


def collect(
    caller: Caller,
    chunks: Sequence[Sequence[Input]],
    fields: Mapping[str, Any],
    timeout: float | None,
    scorer: Scorer[R],
) -> Operation[Part[R]]:
    exchange = caller.exchange(timeout)
    # What each version has scored, by the places of the chunks. A version is the digest of a model, so what it has
    # scored goes together whenever that was.
    scored: dict[str, dict[int, Part[R]]] = {}
    # What holds nothing but refusals has no version, and goes with any.
    unscored: dict[int, Part[R]] = {}
    wanted = list(range(len(chunks)))
    rounds = 0
    while True:
        parts = yield from together([scorer(exchange, fields, chunks[place]) for place in wanted])
        for place, part in zip(wanted, parts, strict=True):
            if part.version is None:
                unscored[place] = part
            else:
                scored.setdefault(part.version, {})[place] = part
        most = max(scored.values(), key=len, default={})
        whole = {**unscored, **most}
        wanted = [place for place in range(len(chunks)) if place not in whole]
        if not wanted:
            return _joined([whole[place] for place in range(len(chunks))])
        # A new version is being rolled out, and replicas differ until that is over.
        rounds += 1
        pause = caller.settings.retry.pause(rounds, None, caller.timing.jitter())
        if pause >= exchange.deadline.remaining():
            raise VersionsDiffer(tuple(sorted(scored)))
        yield from wait(pause)
        # The old one goes: what it hasn't scored by now it may never score.
        open_places = [place for place in range(len(chunks)) if place not in unscored]
        wanted = [place for place in open_places if any(place not in done for done in scored.values())]


def _joined(parts: Sequence[Part[R]]) -> Part[R]:
    """The parts of a call that one version has scored."""
    return Part(
        model=next((part.model for part in parts if part.model), None),
        version=next((part.version for part in parts if part.version), None),
        results=sorted((result for part in parts for result in part.results), key=place_of),
        usage=_sum(part.usage for part in parts),
        request_ids=tuple(request_id for part in parts for request_id in part.request_ids),
    )


def split(inputs: Sequence[Input], max_inputs: int, max_bytes: int) -> list[list[Input]]:
    """Splits inputs into requests. Answers to the same prompt stay together, whatever their number.

    Transforms may relate the candidates of a prompt to each other, and the server computes a shared prompt once.
    """
    groups: dict[str, list[Input]] = {}
    for entry in inputs:
        groups.setdefault(entry.group, []).append(entry)
    chunks: list[list[Input]] = []
    size = 0
    for group in groups.values():
        group_size = sum(len(entry.body) for entry in group)
        if chunks and len(chunks[-1]) + len(group) <= max_inputs and size + group_size <= max_bytes:
            chunks[-1].extend(group)
            size += group_size
        else:
            chunks.append(list(group))
            size = group_size
    return chunks


def _all_of(
    route: Route[R], exchange: Exchange, fields: Mapping[str, Any], inputs: Sequence[Input]
) -> Operation[Part[R]]:
    """The results of one request's inputs, or an error with the index in the caller's list."""
    try:
        reply = yield from exchange.request(
            "POST",
            route.path,
            lambda remaining: _body(fields, remaining, route.list_name, inputs),
            prefix=prefix(json.loads(inputs[0].group)),
        )
    except Problem as problem:
        if problem.index is None or problem.index >= len(inputs):
            raise
        raise problem.at(inputs[problem.index].index) from problem
    body = _replies.json_object(reply)
    results = _replies.results(body, [entry.index for entry in inputs], route.read)
    return Part(
        model=_replies.text(body, "model"),
        version=_replies.text(body, "model_version"),
        results=results,
        usage=_replies.usage(body),
        request_ids=(_replies.text(body, "id"),),
    )


def all_but_refused(
    route: Route[R], exchange: Exchange, fields: Mapping[str, Any], inputs: Sequence[Input]
) -> Operation[Part[R | Refusal]]:
    """Scores the inputs of one request but for those that the server says are at fault."""
    left = list(inputs)
    refused: list[R | Refusal] = []
    while left:
        try:
            part = yield from _all_of(route, exchange, fields, left)
        except RequestRefused as problem:
            # Refusing costs no forward pass, so asking again without the one at fault is cheap.
            remaining = [entry for entry in left if entry.index != problem.index]
            if len(remaining) == len(left):
                raise
            refused.append(problem)
            left = remaining
        else:
            return Part(part.model, part.version, [*part.results, *refused], part.usage, part.request_ids)
    return Part(None, None, refused, Usage(0, 0), ())


def encodable(fields: Mapping[str, Any]) -> Callable[[float], bytes]:
    """A request's JSON; what can't be encoded fails here, not where the request is about to leave."""
    body = partial(_body, fields)
    try:
        body(1.0)
    except UnicodeEncodeError as error:
        raise ValueError("a text has lone surrogates; decode tokens with errors='replace'") from error
    return body


def _body(
    fields: Mapping[str, Any], remaining: float, list_name: str | None = None, inputs: Sequence[Input] = ()
) -> bytes:
    """The JSON of a request: the server gives up when the caller does."""
    timed = {**fields, "timeout_ms": max(1, int(remaining * 1000))}
    head = json.dumps(timed, ensure_ascii=False, allow_nan=False).encode()
    if list_name is None:
        return head
    return b'%s,"%s":[%s]}' % (head[:-1], list_name.encode(), b",".join(entry.body for entry in inputs))


def _sum(usages: Iterable[Usage]) -> Usage:
    every = list(usages)
    return Usage(sum(usage.tokens for usage in every), sum(usage.cached_tokens for usage in every))


def place_of(result: Any) -> int:
    if result.index is None:
        raise InvalidReply("a refusal names no input")
    return int(result.index)
