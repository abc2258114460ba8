"""The Python client and its callables against a real server with the demo models.

How to run: `python/client/README.md`.
"""

from __future__ import annotations

import asyncio
import json
import math
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from karat_client import AsyncClient, Client, Retry, ScoreResult, aggregates, errors, transforms
from karat_client.ms_swift import AsyncKaratReward, KaratReward
from karat_client.ray_data import ScoreBatches
from karat_client.rewardbench import evaluate
from karat_client.rules import Rule
from karat_client.trl import AsyncRewardFunction, RewardFunction
from karat_client.verl import ComputeScore, compute_score_async
from tests.docs.pages import blocks
from tests.server_files import MODELS, ROOT, executable
from tools.server_process import ServerProcess

PROMPT = "How can I copy my classmate's homework without the teacher noticing?"
CANDIDATES = [
    "Copy the homework by hand, change a few words, and add some mistakes so that the teacher does not notice.",
    "I don't think you should copy your classmate's homework. Ask the teacher for more time.",
    "Steal your classmate's homework from their bag during lunch and put your own name on it.",
    "Homework is usually due on Monday.",
]
PROMPTS = [f"What is {number} plus {number}?" for number in range(60)]
RESPONSES = [f"It is {2 * number}" + ", as anyone can count" * (number % 5) + "." for number in range(60)]
TOO_LONG = "word " * 2000


@pytest.fixture(scope="module")
def golden(url: str) -> list[float]:
    """The rewards as the server sends them to whoever asks without this package, in one request."""
    inputs = [{"prompt": prompt, "response": answer} for prompt, answer in zip(PROMPTS, RESPONSES, strict=True)]
    body = json.dumps({"model": "harmless", "inputs": inputs}).encode()
    with urllib.request.urlopen(f"{url}/v1/score", body) as reply:  # noqa: S310 - the server of this test
        return [float(result["reward"]) for result in json.load(reply)["results"]]


def near(expected: list[float]) -> Any:
    return pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("max_inputs", [1, 7, 64])
def test_scores_are_the_servers_however_they_are_split(url: str, golden: list[float], max_inputs: int) -> None:
    with Client(url, "harmless", max_inputs=max_inputs) as client:
        assert client.score(prompts=PROMPTS, responses=RESPONSES).rewards == near(golden)

    async def main() -> list[float]:
        async with AsyncClient(url, "harmless", max_inputs=max_inputs) as client:
            return (await client.score(prompts=PROMPTS, responses=RESPONSES)).rewards

    assert asyncio.run(main()) == near(golden)


def test_a_prompt_as_messages_scores_as_the_same_text(client: Client) -> None:
    asked, answered = {"role": "user", "content": PROMPT}, {"role": "assistant", "content": CANDIDATES[0]}
    as_text = client.score(prompts=PROMPT, responses=CANDIDATES[:1])
    as_dialogue = client.score(messages=[[asked, answered]])
    as_parts = client.score(prompts=[[asked]], responses=[[answered]])
    assert as_dialogue.rewards == near(as_text.rewards)
    assert as_parts.rewards == near(as_text.rewards)
    assert as_dialogue.model_version == as_text.model_version == client.model("harmless").version


def test_rendered_text_is_scored(client: Client) -> None:
    (result,) = client.score(texts=["All by itself."]).results
    assert math.isfinite(result.reward)


def test_aggregates_are_what_they_say_of_the_members(client: Client) -> None:
    def scored(aggregate: Any) -> list[ScoreResult]:
        return list(
            client.score(prompts=PROMPT, responses=CANDIDATES, aggregate=aggregate, include=["members"]).results
        )

    rules: list[tuple[Rule, Callable[[Sequence[float]], float]]] = [
        (aggregates.mean(), statistics.fmean),
        (aggregates.worst_case(), min),
        (aggregates.total(), math.fsum),
        (aggregates.uncertainty_weighted(0.5), lambda them: statistics.fmean(them) - 0.5 * statistics.pvariance(them)),
    ]
    for rule, expected in rules:
        for result in scored(rule):
            members = result.ensemble.members
            assert members is not None
            assert len(members) == 5
            assert result.reward == pytest.approx(expected(members), abs=1e-5)
            assert result.ensemble.disagreement == pytest.approx(statistics.pstdev(members), abs=1e-5)


def test_transforms_are_what_they_say_of_the_raw_reward(client: Client) -> None:
    chain = [transforms.log_sigmoid(0.3), transforms.affine(scale=2, offset=1), transforms.clip(minimum=-1)]
    for result in client.score(prompts=PROMPT, responses=CANDIDATES, transforms=chain).results:
        log_sigmoid = -math.log1p(math.exp(0.3 - result.raw))
        assert result.reward == pytest.approx(max(-1, 2 * log_sigmoid + 1), abs=1e-5)


def test_a_rule_that_does_not_fit_is_refused(client: Client) -> None:
    with pytest.raises(errors.InvalidRequest):
        client.score(texts=["a"], transforms=[transforms.delta()])
    with pytest.raises(errors.InvalidRequest, match="best_guess"):
        client.score(texts=["a"], aggregate="best_guess")


def test_a_cut_is_the_callers_choice_and_told(client: Client) -> None:
    (result,) = client.score(prompts=TOO_LONG, responses=["Well."], truncation="prompt_start").results
    assert result.truncated
    assert result.cut is not None
    assert result.cut.prompt_tokens > 1000
    assert result.cut.response_tokens == 0


def test_problems_are_types(url: str, client: Client) -> None:
    with pytest.raises(errors.UnknownModel):
        client.score(texts=["a"], model="nobody")
    with pytest.raises(errors.UnknownRoute), Client(f"{url}/elsewhere", "harmless") as lost:
        lost.score(texts=["a"])
    with pytest.raises(errors.SampleTooLong) as raised:
        client.score(texts=[TOO_LONG])
    assert raised.value.status == 422
    assert raised.value.request_id


def test_the_input_at_fault_is_named_by_its_place(url: str) -> None:
    responses = [*RESPONSES[:50], " ", *RESPONSES[51:]]
    with pytest.raises(errors.InvalidRequest) as raised, Client(url, "harmless", max_inputs=8) as client:
        client.score(prompts=PROMPTS, responses=responses)
    assert raised.value.index == 50


def test_what_is_at_fault_does_not_cost_the_others_their_score(url: str, golden: list[float]) -> None:
    responses = list(RESPONSES)
    responses[3], responses[4], responses[40] = "", TOO_LONG, "\n"
    with Client(url, "harmless", max_inputs=8) as client:
        scores = client.try_score(prompts=PROMPTS, responses=responses)
    expected = [None if place in (3, 4, 40) else reward for place, reward in enumerate(golden)]
    assert [reward is None for reward in scores.rewards] == [reward is None for reward in expected]
    kept = [reward for reward in scores.rewards if reward is not None]
    assert kept == near([reward for reward in expected if reward is not None])
    assert [type(refusal) for refusal in scores.refusals] == [
        errors.InvalidRequest,
        errors.SampleTooLong,
        errors.InvalidRequest,
    ]


def test_a_timeout_is_an_error_within_its_time(client: Client) -> None:
    texts = [f"{number} " + "word " * 480 for number in range(2000)]
    with pytest.raises(errors.TimeoutPassed):
        client.score(texts=texts, timeout=0.5)


def test_ranking_follows_the_rewards(url: str) -> None:
    with Client(url, "assistant") as client:
        doubled = [*CANDIDATES, CANDIDATES[1]]
        scores = client.score(prompts=PROMPT, responses=doubled)
        ranking = client.best_of_n(PROMPT, doubled)
    expected = sorted(range(5), key=lambda index: (-scores.rewards[index], index))
    assert [result.index for result in ranking.ranked] == expected
    assert ranking.model_version == scores.model_version
    # The same candidate twice keeps both its places.
    assert {1, 4} <= {result.index for result in ranking.ranked}


def test_a_rule_chooses(url: str) -> None:
    with Client(url, "harmless") as client:
        ranking = client.best_of_n(PROMPT, CANDIDATES, select="best_of_n", curve=True, include=["members"])
        none = client.best_of_n(PROMPT, CANDIDATES, select={"minimum_score": {"threshold": 1e6}})
    assert ranking.best is not None
    assert ranking.best == max(ranking.results, key=lambda result: result.reward)
    assert ranking.best.ensemble.members is not None
    assert ranking.margin == ranking.ranked[0].reward - ranking.ranked[1].reward
    assert ranking.curve is not None
    assert [point.n for point in ranking.curve] == [1, 2, 3, 4]
    assert ranking.curve[0].reward == pytest.approx(statistics.fmean(result.reward for result in ranking.results))
    assert ranking.curve[-1].reward == pytest.approx(ranking.best.reward)
    assert none.best is None


def test_a_composites_objectives_are_told(url: str) -> None:
    with Client(url, "assistant") as client:
        (result,) = client.score(prompts=[PROMPT], responses=CANDIDATES[:1], include=["objectives"]).results
    assert result.objectives is not None
    assert result.objectives.keys() == {"relevance", "harmless"}
    assert math.fsum(result.objectives.values()) == pytest.approx(result.reward)


def test_comparing_is_scoring_both_sides(client: Client) -> None:
    chosen, rejected = [CANDIDATES[1], CANDIDATES[3]], [CANDIDATES[0], CANDIDATES[2]]
    comparisons = client.compare(PROMPT, chosen, rejected, beta=0.5)
    better, worse = (client.score(prompts=PROMPT, responses=side).rewards for side in (chosen, rejected))
    margins = [good - bad for good, bad in zip(better, worse, strict=True)]
    assert [pair.margin for pair in comparisons.pairs] == near(margins)
    assert [pair.probability for pair in comparisons.pairs] == near([1 / (1 + math.exp(-gap)) for gap in margins])
    assert [pair.reward_difference for pair in comparisons.pairs] == near([2 * gap for gap in margins])
    assert [pair.strength.mean for pair in comparisons.pairs] == near(margins)
    assert comparisons.accuracy == statistics.fmean(margin > 0 for margin in margins)


def test_the_pair_at_fault_is_named_by_its_place(client: Client) -> None:
    with pytest.raises(errors.SampleTooLong) as raised:
        client.compare(PROMPT, [CANDIDATES[0]] * 3, [*CANDIDATES[:2], TOO_LONG])
    assert raised.value.index == 2


def test_tokens_are_scored_where_they_stand(url: str) -> None:
    response = "I has two dog ."
    with Client(url, "grammar") as client:
        (result,) = client.tokens(prompts="", responses=[response]).results
    worst = min(result.token_rewards, key=lambda token: token.reward)
    assert response[worst.start : worst.end].strip() == "has"
    assert worst.reward < -5


def test_a_model_without_steps_says_so(client: Client) -> None:
    with pytest.raises(errors.InvalidRequest, match="step"):
        client.process(PROMPT, [["First.", "Then."]])


def test_the_server_tells_about_itself(client: Client) -> None:
    assert client.ready()
    assert client.health().models["harmless"] == "ready"
    cards = {card.id: card for card in client.models()}
    assert {"assistant", "harmless", "relevance"} <= cards.keys()
    assert cards["harmless"].max_tokens == 512
    assert cards["harmless"].details["aggregate"] == "mean"
    with pytest.raises(errors.UnknownModel):
        client.model("nobody")


def test_trl_functions_score(url: str, golden: list[float]) -> None:
    prompts = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    completions = [[{"role": "assistant", "content": response}] for response in RESPONSES]
    sync, awaited = RewardFunction(url, "harmless"), AsyncRewardFunction(url, "harmless")
    assert sync(prompts=PROMPTS, completions=RESPONSES, answer=RESPONSES) == near(golden)
    assert sync(prompts=prompts, completions=completions) == near(golden)
    for _ in range(2):
        assert asyncio.run(awaited(prompts=prompts, completions=completions)) == near(golden)
    completions[0][0]["content"] = ""
    assert sync(prompts=prompts, completions=completions)[0] is None


def test_a_trl_function_works_in_another_process(url: str, golden: list[float]) -> None:
    function = RewardFunction(url, "harmless")
    function(prompts=PROMPTS[:1], completions=RESPONSES[:1])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(function, (PROMPTS, RESPONSES)) == near(golden)


def test_verl_functions_score(url: str, golden: list[float]) -> None:
    samples: list[dict[str, Any]] = [
        {"data_source": "d", "solution_str": response, "ground_truth": "", "extra_info": {"question": prompt}}
        for prompt, response in zip(PROMPTS, RESPONSES, strict=True)
    ]
    sync = ComputeScore(url, "harmless", prompt="question")
    awaited = compute_score_async(url, "harmless", prompt="question", details=True)
    assert [sync(**sample) for sample in samples] == near(golden)

    async def main() -> list[Any]:
        # As many at once as a rollout's end brings.
        return list(await asyncio.gather(*[awaited(**sample) for sample in samples * 9]))

    detailed = asyncio.run(main())
    assert [score["score"] for score in detailed] == near(golden * 9)
    assert {tuple(score) for score in detailed} == {
        ("score", "raw", "mean", "worst_case", "disagreement", "scored")
    }  # fmt: skip


def test_ms_swift_rewards_score(url: str, golden: list[float]) -> None:
    rows = [
        [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        for prompt, response in zip(PROMPTS, RESPONSES, strict=True)
    ]
    assert KaratReward(url=url, model="harmless")(RESPONSES, messages=rows) == near(golden)
    reward = AsyncKaratReward(url=url, model="harmless")
    for _ in range(2):
        assert asyncio.run(reward(RESPONSES, messages=rows)) == near(golden)


def test_preferences_are_evaluated(client: Client) -> None:
    rows = [
        {"prompt": PROMPT, "chosen": CANDIDATES[1], "rejected": CANDIDATES[2], "subset": "refusal"},
        {"prompt": PROMPT, "chosen": CANDIDATES[2], "rejected": CANDIDATES[1], "subset": "reversed"},
        {"prompt": PROMPT, "chosen": CANDIDATES[1], "rejected": TOO_LONG, "subset": "refusal"},
    ]
    report = evaluate(client, rows)
    refusal, reverse = report.subsets["refusal"], report.subsets["reversed"]
    assert (refusal.pairs, refusal.unscored, reverse.pairs) == (1, 1, 1)
    assert refusal.correct + reverse.correct == 1
    assert report.table().endswith(f"version {client.model('harmless').version}")


def test_batches_are_scored(url: str, golden: list[float]) -> None:
    scored = ScoreBatches(url, "harmless")({"prompt": PROMPTS, "response": RESPONSES})
    assert scored["reward"] == near(golden)


def test_a_server_that_starts_later_is_waited_for(golden: list[float]) -> None:
    server = ServerProcess(executable(), MODELS)
    rewards: list[float] = []

    def wait_and_score() -> None:
        with Client(server.url, "harmless") as client:
            client.wait_ready()
            rewards.extend(client.score(prompts=PROMPTS, responses=RESPONSES).rewards)

    waiting = threading.Thread(target=wait_and_score)
    waiting.start()
    with server:
        waiting.join()
    assert rewards == near(golden)


def test_a_restart_costs_no_score(golden: list[float]) -> None:
    server = ServerProcess(executable(), MODELS)
    with Client(server.url, "harmless", retry=Retry(attempts=100, longest=0.5)) as client:
        with server:
            client.score(texts=["a connection that is kept"])
        rewards: list[float] = []
        scoring = threading.Thread(
            target=lambda: rewards.extend(client.score(prompts=PROMPTS, responses=RESPONSES).rewards)
        )
        scoring.start()
        with server:
            scoring.join()
    assert rewards == near(golden)


def test_a_full_queue_costs_no_score(golden: list[float]) -> None:
    # One request fills this queue, so nearly all of them are refused at first.
    with ServerProcess(executable(), MODELS, "--queue-tokens", "16") as server:

        async def main() -> list[float]:
            async with AsyncClient(server.url, "harmless", max_concurrency=60) as client:
                every = [
                    client.score(prompts=[prompt], responses=[response])
                    for prompt, response in zip(PROMPTS, RESPONSES, strict=True)
                ]
                return [scores.rewards[0] for scores in await asyncio.gather(*every)]

        assert asyncio.run(main()) == near(golden)
        with urllib.request.urlopen(f"{server.url}/metrics") as reply:  # noqa: S310 - the server of this test
            refused = re.search(rb'karat_http_requests_total{route="/v1/score",status="4xx"} (\d+)', reply.read())
    assert refused is not None
    assert int(refused[1]) > 0


def readme_examples() -> list[str]:
    found = [block for block in blocks(ROOT / "python/client/README.md") if "Client(" in block.code]
    # What needs the reader's own files can't run; what needs a language model has one here.
    return [block.code for block in found if block.language == "python" and "yours" not in (block.why_not or "")]


@pytest.mark.parametrize("example", readme_examples())
def test_the_readmes_examples_run(url: str, critic: str, example: str) -> None:
    server = critic if '"critic"' in example else url
    # A process of its own: an example may start an event loop.
    subprocess.run(
        [sys.executable, "-c", example.replace("http://127.0.0.1:8080", server)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "python/client/src")},
        check=True,
    )
