"""What a client can do, written once for sync and async callers.

A new route is a new function here, and one method on each client.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar
from urllib.parse import quote

import httpx

from karat_client import _critique, _replies, _runs
from karat_client._effects import Deadline, Operation, Reply, Send, send, together, wait
from karat_client._exchange import Exchange
from karat_client._timing import Timing
from karat_client.errors import (
    ConnectionFailed,
    InvalidInput,
    InvalidReply,
    ModelsFailed,
    Problem,
    RequestRefused,
    TimeoutPassed,
    VersionsDiffer,
)
from karat_client.inputs import (
    Input,
    Messages,
    Prompt,
    Response,
    candidate,
    context,
    dialogues,
    pairs,
    prefix,
    rendered,
)
from karat_client.options import (
    CritiqueOptions,
    PartOptions,
    ScoreOptions,
    Settings,
    check_timeout,
    critique_fields,
    request_fields,
)
from karat_client.results import (
    Comparisons,
    Critiques,
    Health,
    ModelCard,
    PartialScores,
    ProcessScores,
    Ranking,
    Refusal,
    ScoreResult,
    Scores,
    TokenScores,
    Usage,
)
from karat_client.runs import Outcome, OutcomesTold, Run

R = TypeVar("R")

POLL_SECONDS = 0.5
"""How often `wait_ready` asks."""


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


SCORE = Route("/v1/score", _replies.score_result)
COMPARE = Route("/v1/compare", _replies.comparison, "pairs")
PROCESS = Route("/v1/process", _replies.process_result)
TOKENS = Route("/v1/tokens", _replies.token_result)


def score(caller: Caller, inputs: Sequence[Input | InvalidInput], options: ScoreOptions) -> Operation[Scores]:
    """Scores every input, or raises: InvalidInput or Problem with the index of the first one at fault."""
    scored = yield from _all(SCORE, caller, inputs, options)
    return Scores(*scored)


def try_score(
    caller: Caller, inputs: Sequence[Input | InvalidInput], options: ScoreOptions
) -> Operation[PartialScores]:
    """Scores what can be scored; what is at fault itself gets the reason in the place of its result."""
    sendable = [entry for entry in inputs if isinstance(entry, Input)]
    fields = request_fields(options, caller.settings.model)
    chunks = split(sendable, caller.settings.max_inputs, caller.settings.max_bytes)
    scored = yield from _collect(caller, chunks, fields, options.get("timeout"), _all_but_refused)
    unsendable = [entry for entry in inputs if isinstance(entry, InvalidInput)]
    results: list[ScoreResult | Refusal] = sorted([*scored.results, *unsendable], key=_place)
    if len(results) != len(inputs):
        raise InvalidReply(f"{len(results)} of {len(inputs)} inputs were answered")
    return PartialScores(
        scored.model or str(fields["model"]), scored.version, tuple(results), scored.usage, scored.request_ids
    )


def best_of_n(
    caller: Caller, prompt: Prompt, responses: Iterable[Response], choice: Mapping[str, Any], options: ScoreOptions
) -> Operation[Ranking]:
    """Chooses among the candidates for one prompt, which are one request. `choice` says how."""
    candidates = list(_candidates(responses))
    if not candidates:
        raise ValueError("there is nothing to choose from: the list is empty")
    fields = {
        **request_fields(options, caller.settings.model),
        **context(_one_prompt(prompt)),
        **{name: value for name, value in choice.items() if value is not None},
        "candidates": candidates,
    }
    exchange = caller.exchange(options.get("timeout"))
    body = _encodable(fields)
    reply = yield from exchange.request("POST", "/v1/best-of-n", body, prefix=prefix(prompt))
    return _replies.ranking(_replies.json_object(reply), len(candidates))


Progress: TypeAlias = "Callable[[int, int], None]"
"""Told how many of how many are done."""


def best_of_n_each(
    caller: Caller,
    prompts: Sequence[Prompt],
    responses: Sequence[Iterable[Response]],
    choice: Mapping[str, Any],
    options: ScoreOptions,
    progress: Progress | None,
) -> Operation[list[Ranking]]:
    """Chooses among each prompt's own candidates, several prompts side by side; each has the whole of the timeout."""
    if len(prompts) != len(responses):
        raise ValueError(f"there are {len(prompts)} prompts and candidates for {len(responses)}")
    if not prompts:
        return []
    done = _Counter(len(prompts), progress)

    def one(prompt: Prompt, candidates: Iterable[Response]) -> Operation[Ranking]:
        ranking = yield from best_of_n(caller, prompt, candidates, choice, options)
        done.add()
        return ranking

    return (yield from together([one(*each) for each in zip(prompts, responses, strict=True)]))


class _Counter:
    """Counts what threads have done, and tells it in order."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total = total
        self._progress = progress
        self._done = 0
        self._lock = threading.Lock()

    def add(self) -> None:
        with self._lock:
            self._done += 1
            if self._progress is not None:
                self._progress(self._done, self._total)


def compare(
    caller: Caller, pairs: Sequence[Input | InvalidInput], choice: Mapping[str, Any], options: ScoreOptions
) -> Operation[Comparisons]:
    """Compares a chosen and a rejected response for each prompt. `choice` says what else is told of each pair."""
    extra = {name: value for name, value in choice.items() if value is not None}
    # Two samples a pair; cuts by shares depend on all pairs, which are therefore sent together.
    most = len(pairs) if "cuts" in extra else max(1, caller.settings.max_inputs // 2)
    compared = yield from _all(COMPARE, caller, pairs, options, extra=extra, most=most)
    return Comparisons(*compared)


def process(
    caller: Caller, solutions: Sequence[Input | InvalidInput], options: PartOptions
) -> Operation[ProcessScores]:
    """Scores the steps of solutions."""
    scored = yield from _all(PROCESS, caller, solutions, options)
    return ProcessScores(*scored)


def tokens(caller: Caller, inputs: Sequence[Input | InvalidInput], options: PartOptions) -> Operation[TokenScores]:
    """Scores the tokens of responses."""
    scored = yield from _all(TOKENS, caller, inputs, options)
    return TokenScores(*scored)


def critique(caller: Caller, prompt: Prompt, response: Response, options: CritiqueOptions) -> Operation[Critiques]:
    """Has critiques of one response written, and the response scored with them in view."""
    exchange = caller.exchange(options.get("timeout"))
    body = _encodable(_subject(caller, prompt, response, options))
    reply = yield from exchange.request("POST", "/v1/critique", body, prefix=prefix(prompt))
    return _critique.critiques(_replies.json_object(reply), wanted(options))


def wanted(options: CritiqueOptions) -> _critique.Wanted:
    """What a reply to such options has to have."""
    return _critique.Wanted(options.get("critiques", 1), options.get("score", True))


def open_critique(
    exchange: Exchange, caller: Caller, prompt: Prompt, response: Response, options: CritiqueOptions
) -> Operation[Reply]:
    """Begins a critique that is read as it is written: the reply's content is unread."""
    body = _encodable({**_subject(caller, prompt, response, options), "stream": True})
    return (yield from exchange.request("POST", "/v1/critique", body, prefix=prefix(prompt), unread=True))


def _subject(caller: Caller, prompt: Prompt, response: Response, options: CritiqueOptions) -> dict[str, Any]:
    fields = critique_fields(options, caller.settings.model)
    return {**fields, **context(_one_prompt(prompt)), "response": candidate(response)}


def models(caller: Caller, timeout: float | None) -> Operation[list[ModelCard]]:
    """Every model of the server."""
    reply = yield from caller.exchange(timeout).request("GET", "/v1/models")
    return _replies.model_cards(_replies.json_object(reply))


def model(caller: Caller, name: str, timeout: float | None) -> Operation[ModelCard]:
    """One model of the server."""
    reply = yield from caller.exchange(timeout).request("GET", f"/v1/models/{quote(name, safe='')}")
    return _replies.model_card(_replies.json_object(reply))


def run(caller: Caller, name: str, timeout: float | None) -> Operation[Run]:
    """What the server knows of a training run."""
    reply = yield from caller.exchange(timeout).request("GET", f"/v1/runs/{quote(name, safe='')}")
    return _runs.run(_replies.json_object(reply))


def configure_run(caller: Caller, name: str, config: Mapping[str, Any], timeout: float | None) -> Operation[None]:
    """Asks more of a training run than statistics."""
    body = json.dumps({part: value for part, value in config.items() if value is not None}, allow_nan=False).encode()
    yield from caller.exchange(timeout).request("PUT", f"/v1/runs/{quote(name, safe='')}", lambda _: body)


def add_outcomes(
    caller: Caller, name: str, outcomes: Iterable[Outcome], timeout: float | None
) -> Operation[OutcomesTold]:
    """Tells what came of samples that were scored."""
    told = [{"request": outcome.request, "index": outcome.index, "value": outcome.value} for outcome in outcomes]
    if not told:
        raise ValueError("there are no outcomes: the list is empty")
    path = f"/v1/runs/{quote(name, safe='')}/outcomes"
    body = json.dumps({"outcomes": told}, allow_nan=False).encode()
    reply = yield from caller.exchange(timeout).request("POST", path, lambda _: body)
    return _runs.outcomes_told(_replies.json_object(reply))


def health(caller: Caller, timeout: float | None) -> Operation[Health]:
    """How far the server has come; asks once."""
    return (yield from _health(caller.deadline(timeout)))


def wait_ready(caller: Caller, timeout: float | None) -> Operation[Health]:
    """Asks until every model has warmed up. A server that isn't there yet is waited for, too."""
    deadline = caller.deadline(timeout)
    last: Exception | None = None
    while True:
        try:
            found = yield from _health(deadline)
        except (ConnectionFailed, InvalidReply) as error:
            # Before karat listens, whatever stands in front of it answers with pages of its own.
            last, status = error, str(error)
        else:
            last, status = None, found.status
            if found.status == "ready":
                return found
            if found.status == "failed":
                raise ModelsFailed(f"no model could be loaded ({', '.join(found.models)}); models() says why")
        if deadline.remaining() <= POLL_SECONDS:
            raise TimeoutPassed(f"the server was not ready in time: {status}") from last
        yield from wait(POLL_SECONDS)


def _health(deadline: Deadline) -> Operation[Health]:
    try:
        reply = yield from send(Send("GET", "/health/ready", deadline))
    except httpx.TransportError as error:
        raise ConnectionFailed(f"the server can't be reached: {error or type(error).__name__}") from error
    return _replies.health(_replies.json_object(reply))


@dataclass(frozen=True)
class _Part(Generic[R]):
    """What one request of a call brought, or all of them."""

    model: str | None
    version: str | None
    results: list[R]
    usage: Usage
    request_ids: tuple[str, ...]


_Scorer = Callable[[Exchange, Mapping[str, Any], Sequence[Input]], "Operation[_Part[R]]"]
_Whole: TypeAlias = "tuple[str, str, tuple[R, ...], Usage, tuple[str, ...]]"


def _all(
    route: Route[R],
    caller: Caller,
    inputs: Sequence[Input | InvalidInput],
    options: ScoreOptions | PartOptions,
    *,
    extra: Mapping[str, Any] | None = None,
    most: int | None = None,
) -> Operation[_Whole[R]]:
    """Every input's result with the model and its version, or the first error; at most `most` inputs a request."""
    for entry in inputs:
        if isinstance(entry, InvalidInput):
            raise entry
    fields = {**request_fields(options, caller.settings.model), **(extra or {})}
    sendable = [entry for entry in inputs if isinstance(entry, Input)]
    chunks = split(sendable, most or caller.settings.max_inputs, caller.settings.max_bytes)
    if extra and "cuts" in extra:
        chunks = [sendable]
    found = yield from _collect(caller, chunks, fields, options.get("timeout"), partial(_all_of, route))
    if found.model is None or found.version is None or len(found.results) != len(inputs):
        raise InvalidReply(f"{len(found.results)} of {len(inputs)} inputs were scored")
    return found.model, found.version, tuple(found.results), found.usage, found.request_ids


def _collect(
    caller: Caller,
    chunks: Sequence[Sequence[Input]],
    fields: Mapping[str, Any],
    timeout: float | None,
    scorer: _Scorer[R],
) -> Operation[_Part[R]]:
    exchange = caller.exchange(timeout)
    # What each version has scored, by the places of the chunks. A version is the digest of a model, so what it has
    # scored goes together whenever that was.
    scored: dict[str, dict[int, _Part[R]]] = {}
    # What holds nothing but refusals has no version, and goes with any.
    unscored: dict[int, _Part[R]] = {}
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


def _joined(parts: Sequence[_Part[R]]) -> _Part[R]:
    """The parts of a call that one version has scored."""
    return _Part(
        model=next((part.model for part in parts if part.model), None),
        version=next((part.version for part in parts if part.version), None),
        results=sorted((result for part in parts for result in part.results), key=_place),
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
) -> Operation[_Part[R]]:
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
    return _Part(
        model=_replies.text(body, "model"),
        version=_replies.text(body, "model_version"),
        results=results,
        usage=_replies.usage(body),
        request_ids=(_replies.text(body, "id"),),
    )


def _all_but_refused(
    exchange: Exchange, fields: Mapping[str, Any], inputs: Sequence[Input]
) -> Operation[_Part[ScoreResult | Refusal]]:
    """Scores the inputs of one request but for those that the server says are at fault."""
    left = list(inputs)
    refused: list[ScoreResult | Refusal] = []
    while left:
        try:
            part = yield from _all_of(SCORE, exchange, fields, left)
        except RequestRefused as problem:
            # Refusing costs no forward pass, so asking again without the one at fault is cheap.
            remaining = [entry for entry in left if entry.index != problem.index]
            if len(remaining) == len(left):
                raise
            refused.append(problem)
            left = remaining
        else:
            return _Part(part.model, part.version, [*part.results, *refused], part.usage, part.request_ids)
    return _Part(None, None, refused, Usage(0, 0), ())


def _encodable(fields: Mapping[str, Any]) -> Callable[[float], bytes]:
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


def _place(result: Any) -> int:
    if result.index is None:
        raise InvalidReply("a refusal names no input")
    return int(result.index)


def _one_prompt(prompt: Prompt) -> Prompt:
    if not isinstance(prompt, str) and not all(isinstance(turn, Mapping) for turn in prompt):
        raise ValueError("this takes one prompt: text, or a list of messages")
    return prompt


def _candidates(responses: Iterable[Response]) -> Iterator[str]:
    if isinstance(responses, str):
        raise ValueError("responses are a list; put a single one into a list")
    for index, response in enumerate(responses):
        try:
            yield candidate(response)
        except ValueError as error:
            raise InvalidInput(index, str(error)) from error
