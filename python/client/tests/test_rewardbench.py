"""Accuracy on preference pairs."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from in_memory import Server, score_body
from karat_client import AsyncClient, Client
from karat_client.rewardbench import Columns, evaluate, evaluate_async, wilson_interval


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0000, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_intervals_are_those_of_newcombe_1998_table_1(successes: int, trials: int, low: float, high: float) -> None:
    """Newcombe 1998, Two-sided confidence intervals for the single proportion, method 3."""
    found = wilson_interval(successes, trials)
    assert [round(bound, 4) for bound in found] == [low, high]


def test_intervals_mirror_and_stay_within_0_and_1() -> None:
    for trials in (1, 7, 1000):
        low, high = wilson_interval(0, trials)
        assert low == 0.0
        mirrored = wilson_interval(trials, trials)
        assert mirrored[1] == 1.0
        assert mirrored[0] == pytest.approx(1 - high, abs=1e-12)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (2, 1), (-1, 1)])
def test_no_trials_have_no_interval(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="no interval"):
        wilson_interval(successes, trials)


def rows() -> list[dict[str, str]]:
    return [
        {"prompt": "1", "chosen": "a", "rejected": "b", "subset": "chat"},
        {"prompt": "2", "chosen": "c", "rejected": "d", "subset": "safety"},
        {"prompt": "3", "chosen": "e", "rejected": "f", "subset": "chat"},
        {"prompt": "4", "chosen": "g", "rejected": "h", "subset": "chat"},
    ]


def scored(*rewards: float) -> httpx.Response:
    body = score_body(["x"] * len(rewards))
    for result, reward in zip(body["results"], rewards, strict=True):
        result["reward"] = reward
    return httpx.Response(200, json=body)


def test_ties_are_wrong_and_subsets_apart(client: Client, async_client: AsyncClient, server: Server) -> None:
    server.before = [scored(2, 1, 0, 1, 5, 5, 3, -3) for _ in range(2)]
    report = evaluate(client, rows())
    chat, safety = report.subsets["chat"], report.subsets["safety"]
    assert (chat.pairs, chat.correct, chat.ties, chat.unscored) == (3, 2, 1, 0)
    assert (safety.accuracy, report.overall.accuracy) == (0.0, 0.5)
    assert report.mean_of_subsets == pytest.approx((2 / 3 + 0) / 2)
    assert chat.interval == wilson_interval(2, 3)
    assert report.model_version == "v1"
    assert asyncio.run(evaluate_async(async_client, rows())) == report


def test_a_pair_that_was_not_scored_counts_neither_way(client: Client) -> None:
    refused = [{**rows()[0], "rejected": "long"}, {**rows()[1], "chosen": " "}]
    report = evaluate(client, [*rows()[2:], *refused])
    assert (report.subsets["chat"].pairs, report.subsets["chat"].unscored) == (2, 1)
    assert report.subsets["safety"].accuracy is None
    assert report.mean_of_subsets == report.subsets["chat"].accuracy
    assert report.table().splitlines()[2].split()[-3:] == ["0", "0", "1"]


def test_columns_can_be_named(client: Client, server: Server) -> None:
    evaluate(client, [{"q": "1", "good": "a", "bad": "b"}], Columns("q", "good", "bad"), aggregate="mean")
    assert server.requests[0]["inputs"][1] == {"prompt": "1", "response": "b"}
    with pytest.raises(ValueError, match="row 0 has no prompt, chosen, rejected but q, good, bad"):
        evaluate(client, [{"q": "1", "good": "a", "bad": "b"}])
