"""LLaMA-Factory's PPO trainer with `reward_model_type: api`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.clients.real import fetched
from tests.clients.real.conftest import CHATS, PAIRS, RETEMPLATED, TEXTS, Karat
from tests.clients.real.front import ALWAYS, Front

ROUTE = "/v1/score/evaluation"
pytestmark = pytest.mark.client("LLaMA-Factory", fetched.LLAMA_FACTORY.version, f"`{ROUTE}`")


def get_rewards(unpacked: Path, url: str, messages: list[str]) -> list[float]:
    stand_ins: dict[str, dict[str, Any]] = {
        "torch": {"Tensor": list},
        "transformers.integrations": {"is_deepspeed_zero3_enabled": lambda: False},
        "llamafactory.extras.packages": {"is_requests_available": lambda: True},
    }
    path = "llamafactory/train/ppo/ppo_utils.py"
    module = fetched.load(fetched.LLAMA_FACTORY, path, stand_ins, unpacked)
    rewards: list[float] = module.get_rewards_from_server(url, messages)
    return rewards


@pytest.mark.parametrize("model", ["relevance", "harmless", "assistant"])
def test_chats_get_the_scores_of_their_texts(model: str, karat: Karat, unpacked: Path) -> None:
    rewards = get_rewards(unpacked, f"{karat.url}/m/{model}{ROUTE}", TEXTS)
    assert rewards == karat.rewards([{"text": text} for text in TEXTS], model)


def test_without_a_model_in_the_url_the_default_scores(karat: Karat, unpacked: Path) -> None:
    rewards = get_rewards(unpacked, f"{karat.url}{ROUTE}", TEXTS)
    assert rewards == karat.rewards([{"text": text} for text in TEXTS], "harmless")


def test_the_policys_template_is_taken_apart(karat: Karat, unpacked: Path) -> None:
    rewards = get_rewards(unpacked, f"{karat.url}/m/{RETEMPLATED}{ROUTE}", CHATS)
    assert rewards == karat.rewards(PAIRS, "harmless")


@pytest.mark.parametrize("status", [400, 429, 503])
def test_every_refusal_is_a_key_error(status: int, karat: Karat, unpacked: Path) -> None:
    with Front(karat.url, status, ALWAYS) as front, pytest.raises(KeyError, match="scores"):
        get_rewards(unpacked, f"{front.url}/m/harmless{ROUTE}", TEXTS)
    assert front.requests == 1


def test_a_long_chat_is_a_key_error_unless_the_url_says_how_to_cut(karat: Karat, unpacked: Path) -> None:
    long = ["because " * 1000]
    url = f"{karat.url}/m/harmless{ROUTE}"
    with pytest.raises(KeyError, match="scores"):
        get_rewards(unpacked, url, long)
    rewards = get_rewards(unpacked, f"{url}?truncation=response_end", long)
    assert rewards == karat.rewards([{"text": long[0]}], "harmless", truncation="response_end")
