"""Cohere's clients, old and new: reranking."""

from __future__ import annotations

import math
from importlib.metadata import version
from typing import Any

import cohere
import cohere.core
import pytest

from tests.clients.real.conftest import RESPONSES, Karat
from tests.clients.real.front import ALWAYS, Front

pytestmark = pytest.mark.client("cohere", version("cohere"), "`/cohere/v1/rerank` `/cohere/v2/rerank`")

QUERY = "What is 3 plus 3?"
PAIRS = [{"prompt": QUERY, "response": response} for response in RESPONSES]


def client(kind: str, url: str, **options: Any) -> Any:
    made = {"v1": cohere.Client, "v2": cohere.ClientV2}[kind]
    return made(api_key="none", base_url=url, **options)


@pytest.mark.parametrize("kind", ["v1", "v2"])
@pytest.mark.parametrize("model", ["relevance", "harmless", "assistant"])
def test_documents_are_ranked_by_their_scores(kind: str, model: str, karat: Karat) -> None:
    answer = client(kind, f"{karat.url}/cohere").rerank(model=model, query=QUERY, documents=RESPONSES)
    scores = [entry.relevance_score for entry in answer.results]
    assert scores == sorted(scores, reverse=True)
    by_index = {entry.index: entry.relevance_score for entry in answer.results}
    rewards = karat.rewards(PAIRS, model).expected
    expected = pytest.approx([1 / (1 + math.exp(-reward)) for reward in rewards], abs=1e-5, rel=0)
    assert [by_index[index] for index in range(len(RESPONSES))] == expected


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_only_the_best_are_sent(kind: str, karat: Karat) -> None:
    answer = client(kind, f"{karat.url}/cohere").rerank(model="relevance", query=QUERY, documents=RESPONSES, top_n=1)
    rewards = karat.rewards(PAIRS, "relevance").expected
    assert [entry.index for entry in answer.results] == [rewards.index(max(rewards))]


@pytest.mark.parametrize("kind", ["v1", "v2"])
@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_is_tried_again(kind: str, status: int, karat: Karat) -> None:
    with Front(karat.url, status, times=1) as front:
        answer = client(kind, f"{front.url}/cohere").rerank(model="relevance", query=QUERY, documents=RESPONSES)
    assert len(answer.results) == len(RESPONSES)
    assert front.requests == 2


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_what_the_client_should_change_is_raised_at_once(kind: str, karat: Karat) -> None:
    with Front(karat.url, 400, ALWAYS) as front, pytest.raises(cohere.core.ApiError):
        client(kind, f"{front.url}/cohere").rerank(model="relevance", query=QUERY, documents=RESPONSES)
    assert front.requests == 1
    with pytest.raises(cohere.core.ApiError, match="nobody"):
        client(kind, f"{karat.url}/m/nobody/cohere").rerank(model="any", query=QUERY, documents=RESPONSES)
