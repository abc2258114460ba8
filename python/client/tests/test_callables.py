"""The ready callables, called as their frameworks call them."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import pickle
from functools import partial
from typing import Any

import httpx
import pytest

from in_memory import Server, problem, reward_of
from karat_client import errors
from karat_client._shared import SharedAsyncClient, SharedClient
from karat_client.ms_swift import AsyncKaratReward, KaratReward
from karat_client.options import Settings
from karat_client.ray_data import ScoreBatches
from karat_client.retry import Retry
from karat_client.trl import AsyncRewardFunction, RewardFunction
from karat_client.verl import ComputeScore, compute_score_async

URL = "http://karat"


def assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


class TestTrl:
    def call(self, function: Any, **arguments: Any) -> Any:
        """Calls as the trainer does: by keyword, with the data set's columns and the trainer's state."""
        outcome = function(completion_ids=[[1]], trainer_state=object(), answer=["x"], log_extra=print, **arguments)
        return asyncio.run(outcome) if inspect.iscoroutine(outcome) else outcome

    @pytest.mark.parametrize("kind", [RewardFunction, AsyncRewardFunction])
    def test_plain_prompts(self, in_memory: Server, kind: Any) -> None:
        function = kind(URL, "assistant", aggregate="worst_case")
        assert self.call(function, prompts=["p", "p"], completions=["a", "b"]) == [reward_of("a"), reward_of("b")]
        assert in_memory.requests[0]["aggregate"] == "worst_case"
        assert in_memory.requests[0]["inputs"][0] == {"prompt": "p", "response": "a"}

    @pytest.mark.parametrize("kind", [RewardFunction, AsyncRewardFunction])
    def test_conversations(self, in_memory: Server, kind: Any) -> None:
        rewards = self.call(kind(URL, "m"), prompts=[user("p")], completions=[assistant("a")])
        assert rewards == [reward_of("a")]
        assert in_memory.requests[0]["inputs"] == [{"messages": [*user("p"), *assistant("a")]}]

    @pytest.mark.parametrize("kind", [RewardFunction, AsyncRewardFunction])
    def test_what_was_not_scored_is_none_and_logged(
        self, in_memory: Server, kind: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING, "karat_client"):
            rewards = self.call(kind(URL, "m"), prompts=["p"] * 4, completions=["a", "", "long", "b"])
        assert rewards == [reward_of("a"), None, None, reward_of("b")]
        assert "2 of 4 samples were not scored" in caplog.text

    @pytest.mark.parametrize("kind", [RewardFunction, AsyncRewardFunction])
    def test_a_failure_is_raised_and_not_a_reward(self, in_memory: Server, kind: Any) -> None:
        in_memory.before = [problem(500, "model-failed", "the model failed")]
        with pytest.raises(errors.ModelFailed):
            self.call(kind(URL, "m"), prompts=["p"], completions=["a"])

    @pytest.mark.parametrize("kind", [RewardFunction, AsyncRewardFunction])
    def test_it_pickles_after_use(self, in_memory: Server, kind: Any) -> None:
        function = kind(URL, "m", name="quality", truncation="prompt_start")
        self.call(function, prompts=["p"], completions=["a"])
        copy = pickle.loads(pickle.dumps(function))  # noqa: S301
        assert copy.__name__ == "quality"
        assert self.call(copy, prompts=["p"], completions=["a"]) == [reward_of("a")]
        assert in_memory.requests[1] == in_memory.requests[0] | {"timeout_ms": in_memory.requests[1]["timeout_ms"]}
        assert asyncio.iscoroutinefunction(copy) == asyncio.iscoroutinefunction(function)

    def test_trainers_can_tell_which_is_async(self) -> None:
        sync, awaited = RewardFunction(URL, "m"), AsyncRewardFunction(URL, "m")
        assert sync.__name__ == awaited.__name__ == "karat_m"
        # Trainers ask the object or its __call__, depending on their version.
        assert asyncio.iscoroutinefunction(awaited)
        assert inspect.iscoroutinefunction(awaited.__call__)
        assert not asyncio.iscoroutinefunction(sync)
        assert not inspect.iscoroutinefunction(sync.__call__)

    @pytest.mark.parametrize("kind", [RewardFunction, AsyncRewardFunction])
    def test_an_empty_shard_costs_nothing(self, in_memory: Server, kind: Any) -> None:
        assert self.call(kind(URL, "m"), prompts=[], completions=[]) == []
        assert in_memory.requests == []

    def test_a_misspelt_option_is_refused(self) -> None:
        with pytest.raises(TypeError, match="agregate"):
            RewardFunction(URL, "m", agregate="mean")  # type: ignore[call-arg]


class TestVerl:
    @pytest.fixture(params=["sync", "async"])
    def make(self, request: pytest.FixtureRequest) -> Any:
        if request.param == "sync":
            return ComputeScore

        def made(*arguments: Any, **options: Any) -> Any:
            function = compute_score_async(*arguments, **options)
            return lambda **sample: asyncio.run(function(**sample))

        return made

    def sample(self, response: str = "a", **extra_info: Any) -> dict[str, Any]:
        return {
            "data_source": "d",
            "solution_str": response,
            "ground_truth": "g",
            "extra_info": extra_info or {"prompt": "p", "num_turns": None},
        }

    def test_a_score_is_a_float(self, in_memory: Server, make: Any) -> None:
        assert make(URL, "m")(**self.sample()) == reward_of("a")
        assert in_memory.requests[0]["inputs"] == [{"prompt": "p", "response": "a"}]

    def test_the_prompt_is_found_where_it_is(self, in_memory: Server, make: Any) -> None:
        make(URL, "m", prompt="question")(**self.sample(question=user("q")))
        make(URL, "m", prompt=lambda extra: extra["a"] + extra["b"])(**self.sample(a="1", b="2"))
        assert in_memory.requests[0]["inputs"][0]["messages"][0] == user("q")[0]
        assert in_memory.requests[1]["inputs"][0]["prompt"] == "12"

    def test_a_missing_prompt_is_told(self, in_memory: Server, make: Any) -> None:
        with pytest.raises(ValueError, match="no 'prompt' but \\['question'\\]"):
            make(URL, "m")(**self.sample(question="q"))

    def test_details_have_the_same_keys_on_every_sample(self, in_memory: Server, make: Any) -> None:
        function = make(URL, "m", details=True, refused_score=-9.0)
        scored, refused = function(**self.sample()), function(**self.sample(""))
        reward = reward_of("a")
        assert scored == {
            "score": reward, "raw": reward + 1, "mean": 2.0, "worst_case": 1.0, "disagreement": 2.0, "scored": 1.0,
        }  # fmt: skip
        assert refused.keys() == scored.keys()
        assert (refused["score"], refused["scored"]) == (-9.0, 0.0)

    def test_a_refused_response_raises_unless_its_score_is_given(self, in_memory: Server, make: Any) -> None:
        with pytest.raises(errors.InvalidRequest):
            make(URL, "m")(**self.sample(" "))
        assert make(URL, "m", refused_score=-9.0)(**self.sample(" ")) == -9.0

    def test_a_failure_never_becomes_the_refused_score(self, in_memory: Server, make: Any) -> None:
        in_memory.before = [problem(500, "internal", "karat failed")]
        with pytest.raises(errors.InternalError):
            make(URL, "m", refused_score=-9.0)(**self.sample())

    def test_verl_recognises_the_async_one(self) -> None:
        function = compute_score_async(URL, "m")
        assert inspect.iscoroutinefunction(function)
        assert inspect.iscoroutinefunction(pickle.loads(pickle.dumps(function)))  # noqa: S301
        assert not inspect.iscoroutinefunction(ComputeScore(URL, "m"))

    def test_the_blocking_one_pickles(self, in_memory: Server) -> None:
        function = ComputeScore(URL, "m", refused_score=-1.0)
        function(**self.sample())
        copy = pickle.loads(pickle.dumps(function))  # noqa: S301
        assert copy(**self.sample("")) == -1.0

    def test_a_refused_score_is_finite(self) -> None:
        with pytest.raises(ValueError, match="finite"):
            ComputeScore(URL, "m", refused_score=float("nan"))


class TestMsSwift:
    def call(self, reward: Any, completions: list[Any], **columns: Any) -> Any:
        outcome = reward(completions, trainer_state=None, **columns)
        return asyncio.run(outcome) if inspect.iscoroutine(outcome) else outcome

    @pytest.mark.parametrize("kind", [KaratReward, AsyncKaratReward])
    def test_it_is_made_and_called_as_an_orm(self, in_memory: Server, kind: Any) -> None:
        registered = partial(kind, url=URL, model="m")
        reward = registered(args=object())
        rows = [[*user("p"), *assistant("a")], [*user("p"), *assistant("")]]
        assert self.call(reward, ["a", ""], messages=rows) == [reward_of("a"), None]
        assert in_memory.requests[0]["inputs"][0] == {"messages": [*user("p"), *assistant("a")]}
        assert reward.args is not None

    @pytest.mark.parametrize("kind", [KaratReward, AsyncKaratReward])
    def test_it_is_used_again_in_another_event_loop(self, in_memory: Server, kind: Any) -> None:
        reward = kind(url=URL, model="m")
        for _ in range(2):
            assert self.call(reward, ["a"], messages=[user("p")]) == [reward_of("a")]

    def test_messages_are_needed(self) -> None:
        with pytest.raises(ValueError, match="'messages'"):
            self.call(KaratReward(url=URL, model="m"), ["a"], solution=["b"])


class Array:
    """What a NumPy array does that matters here."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def tolist(self) -> list[Any]:
        return self.values


class TestRayData:
    def test_columns_are_added(self, in_memory: Server) -> None:
        batch = {"prompt": Array(["p", Array(user("q"))]), "response": Array(["a", "b"]), "id": Array([1, 2])}
        scored = ScoreBatches(URL, "m")(batch)
        assert scored["id"] is batch["id"]
        assert scored["reward"] == [reward_of("a"), reward_of("b")]
        assert scored["reward_raw"] == [reward_of("a") + 1, reward_of("b") + 1]
        assert scored["reward_disagreement"] == [2.0, 2.0]
        assert scored["reward_model_version"] == ["v1", "v1"]

    def test_a_refused_row_raises_or_is_null(self, in_memory: Server) -> None:
        batch = {"prompt": ["p", "p"], "response": ["a", "long"]}
        with pytest.raises(errors.SampleTooLong):
            ScoreBatches(URL, "m")(batch)
        scored = ScoreBatches(URL, "m", keep_refused=True)(batch)
        assert scored["reward"] == [reward_of("a"), None]
        assert scored["reward_refusal"][0] is None
        assert "too long" in scored["reward_refusal"][1]

    def test_a_refusal_names_the_row_and_not_a_place_in_a_request(self, in_memory: Server) -> None:
        batch = {"prompt": ["p", "p", "q"], "response": ["a", "b", "long"]}
        scored = ScoreBatches(URL, "m", keep_refused=True, max_inputs=2)(batch)
        assert "inputs[" not in scored["reward_refusal"][2]
        with pytest.raises(errors.SampleTooLong) as raised:
            ScoreBatches(URL, "m", max_inputs=2)(batch)
        assert raised.value.index == 2
        assert "inputs[" not in str(raised.value)

    def test_the_next_of_several_servers_is_asked_where_one_is_away(self, in_memory: Server) -> None:
        scorer = ScoreBatches(["http://one", "http://two"], "m", retry=Retry(attempts=1))
        in_memory.before = [httpx.ConnectError("away")]
        batch = {"prompt": ["p"], "response": ["a"]}
        assert scorer(batch)["reward"] == [reward_of("a")]
        in_memory.before = [httpx.ConnectError("away"), problem(503, "model-unavailable", "stopping")]
        with pytest.raises(errors.ModelUnavailable):
            scorer(batch)
        with pytest.raises(ValueError, match="at least one server"):
            ScoreBatches([], "m")

    def test_a_reward_of_zero_is_no_refusal(self, in_memory: Server) -> None:
        zero = "\0\0\0\0"
        assert reward_of(zero) == 0.0
        scored = ScoreBatches(URL, "m", keep_refused=True)({"prompt": ["p"], "response": [zero]})
        assert scored["reward"] == [0.0]
        assert scored["reward_refusal"] == [None]

    def test_an_empty_batch_has_the_columns(self, in_memory: Server) -> None:
        scored = ScoreBatches(URL, "m", output="quality")({"prompt": [], "response": []})
        assert scored["quality"] == scored["quality_raw"] == []

    def test_columns_are_neither_missing_nor_replaced(self, in_memory: Server) -> None:
        with pytest.raises(ValueError, match="no response but prompt"):
            ScoreBatches(URL, "m")({"prompt": ["p"]})
        with pytest.raises(ValueError, match="reward already"):
            ScoreBatches(URL, "m")({"prompt": ["p"], "response": ["a"], "reward": [1]})


class TestSharedClients:
    def test_a_forked_process_gets_a_client_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        shared = SharedClient(Settings(URL, "m"))
        parent = shared.get()
        assert shared.get() is parent
        monkeypatch.setattr(os, "getpid", lambda: -1)
        assert shared.get() is not parent

    def test_each_event_loop_has_a_client_of_its_own(self, in_memory: Server) -> None:
        shared = SharedAsyncClient(Settings(URL, "m"))

        async def main() -> Any:
            client = shared.get()
            await client.score(texts=["a"])
            assert shared.get() is client
            return client

        assert asyncio.run(main()) is not asyncio.run(main())

    def test_a_client_is_closed_with_its_event_loop(self, in_memory: Server) -> None:
        shared = SharedAsyncClient(Settings(URL, "m"))

        async def main() -> Any:
            await shared.get().score(texts=["a"])
            return shared.get()

        for _ in range(2):
            client = asyncio.run(main())
            with pytest.raises(RuntimeError, match="closed"):
                asyncio.run(client.score(texts=["a"]))

    def test_secrets_stay_out_of_what_is_printed(self) -> None:
        assert "hunter2" not in repr(Settings(URL, headers={"authorization": "hunter2"}))

    def test_headers_are_sent(self, in_memory: Server) -> None:
        seen: list[str] = []

        def answer(request: httpx.Request) -> httpx.Response:
            seen.append(request.headers["authorization"])
            return problem(404, "unknown-model", "none")

        in_memory.before = [answer]
        function = RewardFunction(URL, "m", headers={"authorization": "Bearer x"})
        with pytest.raises(errors.UnknownModel):
            function(prompts=["p"], completions=["a"])
        assert seen == ["Bearer x"]
