"""Reads replies strictly: what isn't exactly a score never becomes one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from karat_client._effects import Reply
from karat_client.errors import InvalidReply, Problem, problem_class
from karat_client.results import (
    Comparison,
    CurvePoint,
    Cut,
    EmbeddedBy,
    Ensemble,
    Pending,
    Placement,
    ProcessResult,
    Ranking,
    ScoreResult,
    Strength,
    TokenResult,
    TokenReward,
    Usage,
)
from karat_client.server import Health, ModelCard

R = TypeVar("R")


def json_object(reply: Reply) -> Mapping[str, Any]:
    """The reply's JSON object. Raises InvalidReply for anything else, NaN and Infinity included."""
    try:
        value = json.loads(reply.content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidReply(f"the reply is not JSON ({error}): {_excerpt(reply)}") from error
    if not isinstance(value, dict):
        raise InvalidReply(f"the reply is not a JSON object: {_excerpt(reply)}")
    return value


def problem(reply: Reply, today: float) -> Problem:
    """The exception for an error reply. `today` is in seconds since 1970, for a `Retry-After` that is a date."""
    try:
        body = json_object(reply)
    except InvalidReply:
        body = {}
    written_by_karat = isinstance(body.get("type"), str) and isinstance(body.get("detail"), str)
    problem_type = str(body["type"]) if written_by_karat else "about:blank"
    title = body.get("title") if written_by_karat else None
    index = body.get("index")
    return problem_class(problem_type, reply.status)(
        type=problem_type,
        title=title if isinstance(title, str) else f"HTTP {reply.status} {reply.reason}".rstrip(),
        status=reply.status,
        detail=str(body["detail"]) if written_by_karat else _excerpt(reply),
        index=index if isinstance(index, int) and not isinstance(index, bool) else None,
        retry_after=_retry_after(reply.headers.get("retry-after"), today),
        request_id=reply.headers.get("x-request-id"),
    )


def results(body: Mapping[str, Any], indices: list[int], read: Callable[[Mapping[str, Any], int], R]) -> list[R]:
    """The results of one request, under the places that its inputs have in the caller's list.

    Raises InvalidReply unless there is exactly one result for each input, in order.
    """
    found = entries(body, "results")
    if len(found) != len(indices):
        raise InvalidReply(f"the reply has {len(found)} results for {len(indices)} inputs")
    for place, result in enumerate(found):
        if whole(table(result, "results"), "index") != place:
            raise InvalidReply(f"result {place} of the reply has the index {result['index']}")
    return [read(result, index) for result, index in zip(found, indices, strict=True)]


def ranking(body: Mapping[str, Any], candidates: int) -> Ranking:
    """What `/v1/best-of-n` says of so many candidates."""
    placements = [_placement(table(entry, "ranking")) for entry in entries(body, "ranking")]
    selected = table(body.get("selected"), "selected")
    indices = _indices(selected, "indices", candidates)
    if sorted(placement.index for placement in placements) != list(range(candidates)):
        raise InvalidReply(f"the ranking doesn't name each of {candidates} candidates once")
    return Ranking(
        model=text(body, "model"),
        model_version=text(body, "model_version"),
        selected=indices,
        probabilities=_numbers_or_none(selected, "probabilities"),
        placements=tuple(placements),
        results=tuple(results(body, list(range(candidates)), score_result)),
        pareto_front=None if body.get("pareto_front") is None else _indices(body, "pareto_front", candidates),
        curve=None
        if body.get("curve") is None
        else tuple(_curve_point(table(point, "curve")) for point in entries(body, "curve")),
        embedding=None if body.get("embedding") is None else _embedded_by(table(body["embedding"], "embedding")),
        usage=usage(body),
        request_id=text(body, "id"),
    )


def _embedded_by(body: Mapping[str, Any]) -> EmbeddedBy:
    return EmbeddedBy(model=text(body, "model"), model_version=text(body, "model_version"))


def comparison(result: Mapping[str, Any], index: int) -> Comparison:
    """One pair of `/v1/compare`."""
    sides = {
        name: None if result.get(name) is None else score_result(table(result[name], name), index)
        for name in ("chosen", "rejected", "judged")
    }
    if (sides["chosen"] is None or sides["rejected"] is None) and sides["judged"] is None:
        raise InvalidReply(f"pair {index} of the reply has neither two results nor a judge's")
    strength = table(result.get("strength"), "strength")
    return Comparison(
        index=index,
        margin=_number(result, "margin"),
        probability=_number(result, "probability"),
        strength=Strength(_number(strength, "mean"), _number(strength, "deviation")),
        unanimous=result.get("unanimous") is True,
        reward_difference=None if result.get("reward_difference") is None else _number(result, "reward_difference"),
        suggestion=text_or_none(result, "suggestion"),
        orders=_numbers_or_none(result, "orders"),
        **sides,
    )


def process_result(result: Mapping[str, Any], index: int) -> ProcessResult:
    """One solution of `/v1/process`: as many rewards as scores."""
    scores, rewards, returns = (_numbers(result, name) for name in ("scores", "rewards", "returns_to_go"))
    if not len(scores) == len(rewards) == len(returns):
        raise InvalidReply(f"result {index} has {len(scores)} scores, {len(rewards)} rewards, {len(returns)} returns")
    reductions = table(result.get("reductions"), "reductions")
    return ProcessResult(
        index=index,
        scores=scores,
        rewards=rewards,
        returns_to_go=returns,
        reductions={name: _number(reductions, name) for name in reductions},
        reward=_number(result, "reward"),
        raw=_number(result, "raw"),
        tokens=whole(result, "tokens"),
        cut=cut_or_none(result),
    )


def token_result(result: Mapping[str, Any], index: int) -> TokenResult:
    """One response of `/v1/tokens`."""
    return TokenResult(
        index=index,
        token_rewards=tuple(_token_reward(table(entry, "token_rewards")) for entry in entries(result, "token_rewards")),
        reward=_number(result, "reward"),
        raw=_number(result, "raw"),
        tokens=whole(result, "tokens"),
        cut=cut_or_none(result),
    )


def usage(body: Mapping[str, Any]) -> Usage:
    """What a request cost."""
    fields = table(body.get("usage"), "usage")
    return Usage(tokens=whole(fields, "tokens"), cached_tokens=whole(fields, "cached_tokens"))


def text(body: Mapping[str, Any], name: str) -> str:
    """A field that is text."""
    value = body.get(name)
    if not isinstance(value, str):
        raise InvalidReply(f"{name} is not text but {value!r}")
    return value


def model_cards(body: Mapping[str, Any]) -> list[ModelCard]:
    """The models of a list."""
    return [model_card(table(card, "data")) for card in entries(body, "data")]


def model_card(card: Mapping[str, Any]) -> ModelCard:
    """One model."""
    return ModelCard(
        id=text(card, "id"),
        status=text(card, "status"),
        reason=text_or_none(card, "reason"),
        version=text_or_none(card, "version"),
        description=text_or_none(card, "description"),
        license=text_or_none(card, "license"),
        max_tokens=None if card.get("max_tokens") is None else whole(card, "max_tokens"),
        details=card,
    )


def health(body: Mapping[str, Any]) -> Health:
    """How far the server has come. It leaves `models` out when there are none to speak of."""
    models = table(body.get("models", {}), "models")
    return Health(status=text(body, "status"), models={name: text(models, name) for name in models})


def score_result(result: Mapping[str, Any], index: int) -> ScoreResult:
    """The reward of one input."""
    ensemble = table(result.get("ensemble"), "ensemble")
    members = ensemble.get("members")
    objectives = result.get("objectives")
    return ScoreResult(
        index=index,
        reward=_number(result, "reward"),
        raw=_number(result, "raw"),
        ensemble=Ensemble(
            mean=_number(ensemble, "mean"),
            worst_case=_number(ensemble, "worst_case"),
            variance=_number(ensemble, "variance"),
            members=None if members is None else _numbers(ensemble, "members"),
        ),
        tokens=whole(result, "tokens"),
        cut=cut_or_none(result),
        objectives=None
        if objectives is None
        else {name: _number(table(objectives, "objectives"), name) for name in table(objectives, "objectives")},
    )


def known_result(result: Mapping[str, Any], index: int) -> ScoreResult | Pending:
    """The reward of one input, or that it isn't known yet."""
    return Pending(index) if result.get("pending") is True else score_result(result, index)


def _placement(entry: Mapping[str, Any]) -> Placement:
    return Placement(
        index=whole(entry, "index"),
        rank=whole(entry, "rank"),
        reward=_number(entry, "reward"),
        behind=_number(entry, "behind"),
        ahead=None if entry.get("ahead") is None else _number(entry, "ahead"),
    )


def _curve_point(point: Mapping[str, Any]) -> CurvePoint:
    return CurvePoint(whole(point, "n"), _number(point, "proxy"), _number(point, "divergence"))


def _token_reward(entry: Mapping[str, Any]) -> TokenReward:
    span = entry.get("text")
    found = None if span is None else table(span, "text")
    return TokenReward(
        position=whole(entry, "position"),
        start=None if found is None else whole(found, "start"),
        end=None if found is None else whole(found, "end"),
        reward=_number(entry, "reward"),
    )


def cut_or_none(result: Mapping[str, Any]) -> Cut | None:
    """What was cut, if anything was."""
    if result.get("cut") is None:
        return None
    cut = table(result["cut"], "cut")
    return Cut(whole(cut, "prompt_tokens"), whole(cut, "response_tokens"))


def _numbers(fields: Mapping[str, Any], name: str) -> tuple[float, ...]:
    return tuple(_finite(value, name) for value in entries(fields, name))


def _numbers_or_none(fields: Mapping[str, Any], name: str) -> tuple[float, ...] | None:
    return None if fields.get(name) is None else _numbers(fields, name)


def _indices(fields: Mapping[str, Any], name: str, count: int) -> tuple[int, ...]:
    indices = entries(fields, name)
    for index in indices:
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < count:
            raise InvalidReply(f"{name} has {index!r} for one of {count} candidates")
    return tuple(indices)


def _number(fields: Mapping[str, Any], name: str) -> float:
    return _finite(fields.get(name), name)


def _finite(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidReply(f"{name} is not a number but {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        # JSON's 1e999 is a number that Python reads as infinity.
        raise InvalidReply(f"{name} is not a finite number but {value!r}")
    return number


def whole(fields: Mapping[str, Any], name: str) -> int:
    """A field that is a whole number."""
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidReply(f"{name} is not a whole number but {value!r}")
    return value


def text_or_none(fields: Mapping[str, Any], name: str) -> str | None:
    """A field that is text, if it is there."""
    return None if fields.get(name) is None else text(fields, name)


def number_or_none(fields: Mapping[str, Any], name: str) -> float | None:
    """A field that is a finite number, if it is there."""
    return None if fields.get(name) is None else _number(fields, name)


def entries(fields: Mapping[str, Any], name: str) -> list[Any]:
    """A field that is a list."""
    value = fields.get(name)
    if not isinstance(value, list):
        raise InvalidReply(f"{name} is not a list but {value!r}")
    return value


def table(value: Any, name: str) -> Mapping[str, Any]:
    """An object that the reply has under that name."""
    if not isinstance(value, dict):
        raise InvalidReply(f"{name} is not an object but {value!r}")
    return value


def _retry_after(value: str | None, today: float) -> float | None:
    """Seconds to wait, from seconds or an HTTP date; None for anything else."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - today
        except (ValueError, TypeError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _refuse_constant(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _excerpt(reply: Reply) -> str:
    start = reply.content[:500].decode(errors="replace").strip()
    return start or "the body is empty"
