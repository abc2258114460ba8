"""verl's reward loop against karat in the place of a vLLM or an SGLang server, with and without verl's router."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import aiohttp
import pytest
import uvicorn

from tests.clients.real import fetched
from tests.clients.real.conftest import CHATS, PAIRS, PROMPTS, RESPONSES, RETEMPLATED, TEXTS, Karat, chatml
from tests.clients.real.front import ALWAYS, Front

FOLDER = "verl/experimental/reward_loop"
MODES = [
    pytest.param("vllm", marks=pytest.mark.client("verl (vLLM mode)", fetched.VERL.version, "`/classify`")),
    pytest.param("sglang", marks=pytest.mark.client("verl (SGLang mode)", fetched.VERL.version, "`/v1/embeddings`")),
]


def nothing(*_: Any, **__: Any) -> Any:
    raise AssertionError("the reward loop's requests don't need this")


def reward_loop(unpacked: Path) -> ModuleType:
    stand_ins: dict[str, dict[str, Any]] = {
        "ray": {},
        "ray.actor": {"ActorHandle": object},
        "omegaconf": {"DictConfig": dict, "open_dict": nothing},
        "tensordict": {"TensorDict": dict},
        "verl.protocol": {"DataProto": object, "pad_dataproto_to_divisor": nothing},
        "verl.single_controller.ray.base": {"RayResourcePool": object},
        "verl.trainer.ppo.reward": {"load_reward_manager": nothing, "resolve_reward_manager_cls": nothing},
        "verl.utils": {"hf_tokenizer": nothing},
        "verl.utils.fs": {"copy_to_local": nothing},
        "verl.utils.ray_utils": {"get_event_loop": nothing},
        f"{FOLDER.replace('/', '.')}.reward_model": {"RewardModelManager": object},
    }
    return fetched.load(fetched.VERL, f"{FOLDER}/reward_loop.py", stand_ins, unpacked)


class Ids(list[int]):
    """Token ids that know their shape and can be summed, as a tensor does."""

    @property
    def shape(self) -> tuple[int]:
        return (len(self),)

    def __getitem__(self, place: Any) -> Any:
        return Ids(super().__getitem__(place))

    def sum(self) -> int:
        return sum(self)


class Policy:
    """A tokenizer whose tokens are the text's characters."""

    eos_token = "</s>"

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


Template = Callable[[str, str], str]


def worker(module: ModuleType, mode: str, address: str, model: str, template: Template) -> Any:
    """verl's worker with a reward model's tokenizer that renders by `template`."""
    made = object.__new__(module.RewardLoopWorker)
    rollout = SimpleNamespace(name=mode)
    made.config = SimpleNamespace(
        reward=SimpleNamespace(reward_model=SimpleNamespace(rollout=rollout, model_path=model))
    )
    made.reward_router_address = address
    made.input_tokenizer = Policy()
    made.reward_model_tokenizer = SimpleNamespace(
        bos_token="<s>",  # noqa: S106 - no password
        apply_chat_template=lambda chat, **_: "<s>" + template(*[turn["content"] for turn in chat]),
    )
    return made


class Batch:
    """One sample as verl hands it over."""

    def __init__(self, prompt: str, response: str) -> None:
        ids = Ids(map(ord, response + Policy.eos_token))
        self.non_tensor_batch = {"raw_prompt": [{"role": "user", "content": prompt}]}
        self.batch = {"responses": ids, "attention_mask": Ids([1] * len(ids))}

    def __len__(self) -> int:
        return 1

    def __getitem__(self, _: int) -> Batch:
        return self


def scores(made: Any, samples: list[tuple[str, str]]) -> list[float]:
    async def main() -> list[dict[str, Any]]:
        return await asyncio.gather(*[made.compute_score_disrm(Batch(*sample)) for sample in samples])

    return [sample["reward_score"] for sample in asyncio.run(main())]


SAMPLES = list(zip(PROMPTS, RESPONSES, strict=True))


def plain(prompt: str, response: str) -> str:
    return f"{prompt} {response}"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("model", ["relevance", "harmless", "assistant"])
def test_samples_get_the_scores_of_their_texts(mode: str, model: str, karat: Karat, unpacked: Path) -> None:
    # verl writes a checkpoint's path where the model's name is wanted.
    made = worker(reward_loop(unpacked), mode, karat.address, f"/checkpoints/{model}", plain)
    assert scores(made, SAMPLES) == karat.rewards([{"text": text} for text in TEXTS], model)


@pytest.mark.parametrize("mode", MODES)
def test_an_unknown_checkpoint_becomes_the_default_model(mode: str, karat: Karat, unpacked: Path) -> None:
    made = worker(reward_loop(unpacked), mode, karat.address, "/checkpoints/step-100", plain)
    assert scores(made, SAMPLES) == karat.rewards([{"text": text} for text in TEXTS], "harmless")


@pytest.mark.parametrize("mode", MODES)
def test_the_policys_template_is_taken_apart(mode: str, karat: Karat, unpacked: Path) -> None:
    made = worker(reward_loop(unpacked), mode, karat.address, RETEMPLATED, chatml)
    assert len(CHATS) == len(SAMPLES)
    assert scores(made, SAMPLES) == karat.rewards(PAIRS, "harmless")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("status", [408, 429, 400])
def test_what_the_client_should_change_fails_at_once(mode: str, status: int, karat: Karat, unpacked: Path) -> None:
    module = reward_loop(unpacked)
    with Front(karat.url, status, ALWAYS) as front:
        made = worker(module, mode, front.url.removeprefix("http://"), "harmless", plain)
        with pytest.raises(aiohttp.ClientResponseError):
            scores(made, SAMPLES[:1])
    assert front.requests == 1


@pytest.mark.parametrize("mode", MODES)
def test_a_server_that_is_overloaded_is_tried_16_times(mode: str, karat: Karat, unpacked: Path) -> None:
    module = reward_loop(unpacked)
    module.asyncio = fetched.WithoutPauses(asyncio)  # type: ignore[attr-defined]
    with Front(karat.url, 503, times=15) as front:
        made = worker(module, mode, front.url.removeprefix("http://"), "harmless", plain)
        assert scores(made, SAMPLES[:1]) == karat.rewards([{"text": TEXTS[0]}], "harmless")
    assert front.requests == 16
    assert module.asyncio.pauses == [1, 2, 4, 8, 16, *[30] * 10]


@contextmanager
def router(urls: list[str], unpacked: Path) -> Iterator[str]:
    """verl's own load balancer in front of several servers; gives its address."""
    stand_ins: dict[str, dict[str, Any]] = {
        "ray": {},
        "verl.utils.net_utils": {"get_free_port": nothing, "is_valid_ipv6_address": nothing},
    }
    module = fetched.load(fetched.VERL, f"{FOLDER}/router/naive_router.py", stand_ins, unpacked)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(module.NaiveRouter(urls).app, log_level="critical"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.mark.parametrize("mode", MODES)
def test_two_replicas_behind_verls_router_share_the_work(mode: str, replicas: list[Karat], unpacked: Path) -> None:
    route = {"vllm": "/classify", "sglang": "/v1/embeddings"}[mode]
    before = [karat.answered(route) for karat in replicas]
    samples = [(f"Count to {number}.", f"One, two, {number}.") for number in range(200)]
    with router([karat.url for karat in replicas], unpacked) as address:
        got = scores(worker(reward_loop(unpacked), mode, address, "harmless", plain), samples)
    assert got == replicas[0].rewards([{"text": plain(*sample)} for sample in samples], "harmless")
    shares = [karat.answered(route) - earlier for karat, earlier in zip(replicas, before, strict=True)]
    assert sum(shares) == len(samples)
    assert min(shares) > 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("status", [400, 429, 503])
def test_behind_verls_router_every_refusal_is_tried_again(mode: str, status: int, karat: Karat, unpacked: Path) -> None:
    """The router answers 500 whatever it was answered, which the worker takes for a fault that passes."""
    module = reward_loop(unpacked)
    module.asyncio = fetched.WithoutPauses(asyncio)  # type: ignore[attr-defined]
    with Front(karat.url, status, times=3) as front, router([front.url], unpacked) as address:
        made = worker(module, mode, address, "harmless", plain)
        assert scores(made, SAMPLES[:1]) == karat.rewards([{"text": TEXTS[0]}], "harmless")
    assert front.requests == 4
