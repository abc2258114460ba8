"""OpenRLHF's agent (0.11) and its older remote reward model (0.8)."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.clients.real import fetched
from tests.clients.real.conftest import CHATS, PAIRS, PROMPTS, RESPONSES, RETEMPLATED, Karat
from tests.clients.real.front import ALWAYS, Front

ROUTE = "/get_reward"
MODERN = [
    pytest.param(version, marks=pytest.mark.client("OpenRLHF", version, f"`{ROUTE}`"))
    for version in ("0.11.2", "0.11.0")
]
OLD = pytest.mark.client("OpenRLHF", "0.8.5", f"`{ROUTE}`")


def agent(version: str, unpacked: Path) -> ModuleType:
    stand_ins = {"openrlhf.utils.logging_utils": fetched.LOGGING}
    return fetched.load(fetched.OPENRLHF[version], "openrlhf/utils/agent.py", stand_ins, unpacked)


class Tokenizer:
    """A tokenizer whose tokens are the text's characters."""

    def __call__(self, text: str, **_: Any) -> dict[str, list[Any]]:
        return {"input_ids": [SimpleNamespace(tolist=lambda: [ord(letter) for letter in text])]}

    def decode(self, tokens: list[int], **_: Any) -> str:
        return "".join(map(chr, tokens))


class Engine:
    """A policy that always gives the same answer."""

    def __init__(self, answer: str) -> None:
        self.answer = answer

    async def generate(self, *_: Any, **__: Any) -> Any:
        tokens = [ord(letter) for letter in self.answer]
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=tokens, finish_reason="stop", logprobs=None)])


async def rollout(executor: Any, prompt: str, response: str) -> dict[str, Any]:
    """One rollout of the trainer, from the prompt to the reward."""
    sampling = SimpleNamespace(max_tokens=512, logprobs=None)
    output: dict[str, Any] = await executor.execute(prompt, None, sampling, 100_000, Tokenizer(), Engine(response))
    return output


def rollouts(module: ModuleType, urls: list[str], samples: list[tuple[str, str]]) -> list[dict[str, Any]]:
    async def main() -> list[dict[str, Any]]:
        executor = module.SingleTurnAgentExecutor(urls)
        return await asyncio.gather(*[rollout(executor, prompt, response) for prompt, response in samples])

    return asyncio.run(main())


SAMPLES = list(zip(PROMPTS, RESPONSES, strict=True))


def one(output: dict[str, Any]) -> float:
    assert output["reward"] == output["scores"]
    (reward,) = output["reward"]
    return float(reward)


@pytest.mark.parametrize("version", MODERN)
@pytest.mark.parametrize("model", ["relevance", "harmless", "assistant"])
def test_rollouts_get_the_scores_of_their_pairs(version: str, model: str, karat: Karat, unpacked: Path) -> None:
    module = agent(version, unpacked)
    outputs = rollouts(module, [f"{karat.url}/m/{model}{ROUTE}"], SAMPLES)
    assert [one(output) for output in outputs] == karat.rewards(PAIRS, model)
    keys = {frozenset(output["extra_logs"]) for output in outputs}
    assert len(keys) == 1
    assert {"raw", "mean", "worst_case", "deviation", "member_0"} <= set(*keys)


@pytest.mark.parametrize("version", MODERN)
def test_rules_in_the_url_apply(version: str, karat: Karat, unpacked: Path) -> None:
    url = f"{karat.url}/m/harmless{ROUTE}?aggregate=worst_case"
    outputs = rollouts(agent(version, unpacked), [url], SAMPLES)
    assert [one(output) for output in outputs] == karat.rewards(PAIRS, "harmless", aggregate="worst_case")
    assert [one(output) for output in outputs] == [output["extra_logs"]["worst_case"][0] for output in outputs]


@pytest.mark.parametrize("version", MODERN)
def test_the_policys_template_is_taken_apart(version: str, karat: Karat, unpacked: Path) -> None:
    def split(chat: str) -> tuple[str, str]:
        prompt, mark, response = chat.partition("<|im_start|>assistant\n")
        return prompt + mark, response

    outputs = rollouts(agent(version, unpacked), [f"{karat.url}/m/{RETEMPLATED}{ROUTE}"], [*map(split, CHATS)])
    assert [one(output) for output in outputs] == karat.rewards(PAIRS, "harmless")


@pytest.mark.parametrize("version", MODERN)
def test_512_rollouts_at_once_lose_no_reward(version: str, karat: Karat, unpacked: Path) -> None:
    samples = [(f"Count to {number}.", f"One, two, {number}.") for number in range(512)]
    outputs = rollouts(agent(version, unpacked), [f"{karat.url}/m/harmless{ROUTE}"], samples)
    expected = karat.rewards([{"prompt": prompt, "response": response} for prompt, response in samples], "harmless")
    assert [one(output) for output in outputs] == expected


@pytest.mark.parametrize("version", MODERN)
def test_two_replicas_share_the_work(version: str, replicas: list[Karat], unpacked: Path) -> None:
    """0.11.2 takes turns between the URLs; 0.11.0 sends empty shards to all but the first."""
    before = [karat.answered(f"/m/{{model}}{ROUTE}") for karat in replicas]
    module = agent(version, unpacked)
    urls = [f"{karat.url}/m/harmless{ROUTE}" for karat in replicas]
    outputs = rollouts(module, urls, SAMPLES)
    assert [one(output) for output in outputs] == replicas[0].rewards(PAIRS, "harmless")
    for karat, earlier in zip(replicas, before, strict=True):
        assert karat.answered(f"/m/{{model}}{ROUTE}") - earlier >= len(SAMPLES) // 2

    # The client's own sharding of a list.
    executor = module.SingleTurnAgentExecutor(urls)
    queries = [prompt + response for prompt, response in SAMPLES]
    shards = asyncio.run(executor._fetch_rewards_via_http(queries, PROMPTS, [None] * len(queries)))
    assert len(shards) == 2
    assert [reward for shard in shards for reward in shard["rewards"]] == replicas[1].rewards(PAIRS, "harmless")


@pytest.mark.parametrize("version", MODERN)
@pytest.mark.parametrize("status", [429, 503, 408])
def test_a_refusal_that_passes_costs_a_second(version: str, status: int, karat: Karat, unpacked: Path) -> None:
    module = agent(version, unpacked)
    module.asyncio = fetched.WithoutPauses(asyncio)  # type: ignore[attr-defined]
    with Front(karat.url, status, times=2) as front:
        (output,) = rollouts(module, [f"{front.url}/m/harmless{ROUTE}"], SAMPLES[:1])
    assert [one(output)] == karat.rewards(PAIRS[:1], "harmless")
    assert front.requests == 3
    assert module.asyncio.pauses == [1, 1]


@pytest.mark.parametrize("version", MODERN)
@pytest.mark.parametrize("status", [400, 429, 503])
def test_a_refusal_that_lasts_loses_the_reward(version: str, status: int, karat: Karat, unpacked: Path) -> None:
    module = agent(version, unpacked)
    module.asyncio = fetched.WithoutPauses(asyncio)  # type: ignore[attr-defined]
    with Front(karat.url, status, ALWAYS) as front:
        (output,) = rollouts(module, [f"{front.url}/m/harmless{ROUTE}"], SAMPLES[:1])
    assert output["reward"] is None
    assert front.requests == 5


@pytest.mark.parametrize("version", MODERN)
def test_what_can_not_be_scored_is_asked_five_times(version: str, karat: Karat, unpacked: Path) -> None:
    module = agent(version, unpacked)
    module.asyncio = fetched.WithoutPauses(asyncio)  # type: ignore[attr-defined]
    with Front(karat.url) as front:
        (output,) = rollouts(module, [f"{front.url}/m/harmless{ROUTE}"], [("Why?", "because " * 1000)])
    assert output["reward"] is None
    assert front.requests == 5


def remote(version: str, unpacked: Path) -> ModuleType:
    """The old client, with threads where it has Ray."""
    pool = ThreadPoolExecutor(8)

    def as_task(kind: Any) -> Any:
        if isinstance(kind, type):
            return kind
        return SimpleNamespace(remote=lambda *values, **named: pool.submit(kind, *values, **named))

    def get(tasks: list[Future[Any]]) -> list[Any]:
        return [task.result() for task in tasks]

    ray = {"remote": as_task, "get": get}
    stand_ins: dict[str, dict[str, Any]] = {"openrlhf.utils.logging_utils": fetched.LOGGING, "ray": ray}
    return fetched.load(fetched.OPENRLHF[version], "openrlhf/utils/remote_rm_utils.py", stand_ins, unpacked)


@OLD
@pytest.mark.parametrize("model", ["relevance", "harmless", "assistant"])
@pytest.mark.parametrize("servers", [1, 2])
def test_the_old_client_gets_the_scores(servers: int, model: str, replicas: list[Karat], unpacked: Path) -> None:
    module = remote("0.8.5", unpacked)
    urls = [f"{karat.url}/m/{model}{ROUTE}" for karat in replicas[:servers]]
    queries = [prompt + response for prompt, response in SAMPLES]
    shards = module.RemoteRewardModel(SimpleNamespace(), urls).get_rewards(queries, PROMPTS, [None] * len(queries))
    assert len(shards) == servers
    expected = replicas[0].rewards(PAIRS, model)
    assert [reward for shard in shards for reward in shard["rewards"]] == expected
    assert [score for shard in shards for score in shard["scores"]] == expected
    assert all(len(shard["extra_logs"]["mean"]) == len(shard["rewards"]) for shard in shards)


@OLD
@pytest.mark.parametrize("status", [400, 429, 503])
def test_the_old_client_tries_five_times_and_raises(status: int, karat: Karat, unpacked: Path) -> None:
    module = remote("0.8.5", unpacked)
    module.time = fetched.WithoutPauses(time)  # type: ignore[attr-defined]
    data = {"query": [PROMPTS[0] + RESPONSES[0]], "prompts": PROMPTS[:1], "labels": [None]}
    with Front(karat.url, status, times=4) as front:
        reply = module.request_api_wrapper(f"{front.url}/m/harmless{ROUTE}", data)
    assert reply["rewards"] == karat.rewards(PAIRS[:1], "harmless")
    with Front(karat.url, status, ALWAYS) as front, pytest.raises(Exception, match="5 times"):
        module.request_api_wrapper(f"{front.url}/m/harmless{ROUTE}", data)
    assert front.requests == 5
