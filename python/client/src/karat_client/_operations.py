"""What a client can have scored, written once for sync and async callers.

A new route is a new function here, and one method on each client. What clients ask of the server itself is in
`_server`, of training runs in `_runs`, of jobs in `_jobs`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from karat_client import _critique, _replies
from karat_client._effects import Operation, Reply, together
from karat_client._exchange import Exchange
from karat_client._requests import Caller, Route, all_but_refused, all_results, collect, encodable, place_of, split
from karat_client.errors import InvalidInput, InvalidReply
from karat_client.inputs import Input, Prompt, Response, candidate, context, prefix
from karat_client.options import CritiqueOptions, PartOptions, ScoreOptions, critique_fields, request_fields
from karat_client.results import (
    Comparisons,
    Critiques,
    KnownScores,
    PartialScores,
    ProcessScores,
    Ranking,
    Refusal,
    ScoreResult,
    Scores,
    TokenScores,
)

SCORE = Route("/v1/score", _replies.score_result)
KNOWN = Route("/v1/score", _replies.known_result)
COMPARE = Route("/v1/compare", _replies.comparison, "pairs")
PROCESS = Route("/v1/process", _replies.process_result)
TOKENS = Route("/v1/tokens", _replies.token_result)


def score(caller: Caller, inputs: Sequence[Input | InvalidInput], options: ScoreOptions) -> Operation[Scores]:
    """Scores every input, or raises: InvalidInput or Problem with the index of the first one at fault."""
    scored = yield from all_results(SCORE, caller, inputs, options)
    return Scores(*scored)


def try_score(
    caller: Caller, inputs: Sequence[Input | InvalidInput], options: ScoreOptions
) -> Operation[PartialScores]:
    """Scores what can be scored; what is at fault itself gets the reason in the place of its result."""
    sendable = [entry for entry in inputs if isinstance(entry, Input)]
    fields = request_fields(options, caller.settings.model)
    chunks = split(sendable, caller.settings.max_inputs, caller.settings.max_bytes)
    scored = yield from collect(caller, chunks, fields, options.get("timeout"), partial(all_but_refused, SCORE))
    unsendable = [entry for entry in inputs if isinstance(entry, InvalidInput)]
    results: list[ScoreResult | Refusal] = sorted([*scored.results, *unsendable], key=place_of)
    if len(results) != len(inputs):
        raise InvalidReply(f"{len(results)} of {len(inputs)} inputs were answered")
    return PartialScores(
        scored.model or str(fields["model"]), scored.version, tuple(results), scored.usage, scored.request_ids
    )


def known_scores(
    caller: Caller, inputs: Sequence[Input | InvalidInput], options: ScoreOptions
) -> Operation[KnownScores]:
    """The scores that the server knows already; it queues the others, and doesn't wait for them."""
    known = yield from all_results(KNOWN, caller, inputs, options, extra={"wait": False})
    return KnownScores(*known)


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
    body = encodable(fields)
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
    compared = yield from all_results(COMPARE, caller, pairs, options, extra=extra, most=most)
    return Comparisons(*compared)


def process(
    caller: Caller, solutions: Sequence[Input | InvalidInput], options: PartOptions
) -> Operation[ProcessScores]:
    """Scores the steps of solutions."""
    scored = yield from all_results(PROCESS, caller, solutions, options)
    return ProcessScores(*scored)


def tokens(caller: Caller, inputs: Sequence[Input | InvalidInput], options: PartOptions) -> Operation[TokenScores]:
    """Scores the tokens of responses."""
    scored = yield from all_results(TOKENS, caller, inputs, options)
    return TokenScores(*scored)


def critique(caller: Caller, prompt: Prompt, response: Response, options: CritiqueOptions) -> Operation[Critiques]:
    """Has critiques of one response written, and the response scored with them in view."""
    exchange = caller.exchange(options.get("timeout"))
    body = encodable(_subject(caller, prompt, response, options))
    reply = yield from exchange.request("POST", "/v1/critique", body, prefix=prefix(prompt))
    return _critique.critiques(_replies.json_object(reply), wanted(options))


def wanted(options: CritiqueOptions) -> _critique.Wanted:
    """What a reply to such options has to have."""
    return _critique.Wanted(options.get("critiques", 1), options.get("score", True))


def open_critique(
    exchange: Exchange, caller: Caller, prompt: Prompt, response: Response, options: CritiqueOptions
) -> Operation[Reply]:
    """Begins a critique that is read as it is written: the reply's content is unread."""
    body = encodable({**_subject(caller, prompt, response, options), "stream": True})
    return (yield from exchange.request("POST", "/v1/critique", body, prefix=prefix(prompt), unread=True))


def _subject(caller: Caller, prompt: Prompt, response: Response, options: CritiqueOptions) -> dict[str, Any]:
    fields = critique_fields(options, caller.settings.model)
    return {**fields, **context(_one_prompt(prompt)), "response": candidate(response)}


def _one_prompt(prompt: Prompt) -> Prompt:
    if not isinstance(prompt, str) and not all(isinstance(turn, Mapping) for turn in prompt):
        raise ValueError("this takes one prompt: text, or a list of messages")
    return prompt


def _candidates(responses: Iterable[Response]) -> Iterator[str | Mapping[str, Any]]:
    if isinstance(responses, str):
        raise ValueError("responses are a list; put a single one into a list")
    for index, response in enumerate(responses):
        try:
            yield candidate(response)
        except ValueError as error:
            raise InvalidInput(index, str(error)) from error
