"""Ranking, comparing, and asking the server about itself."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from in_memory import Clock, Server, compare_body, reward_of, score_body
from karat_client import AsyncClient, Client, EmbeddedBy, errors


def results_of(*rewards: float) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = score_body([str(reward) for reward in rewards])["results"]
    for result, reward in zip(results, rewards, strict=True):
        result["reward"] = result["raw"] = reward
    return results


def test_the_servers_choice_is_told(client: Client, server: Server) -> None:
    def placed(index: int, rank: int, reward: float, ahead: float | None) -> dict[str, Any]:
        return {"index": index, "rank": rank, "reward": reward, "behind": 3.0 - reward, "ahead": ahead}

    choice = {
        "best": 3,
        "selected": {"indices": [3, 1], "probabilities": [0.1, 0.2, 0.3, 0.4]},
        "ranking": [placed(1, 1, 3.0, 1.0), placed(3, 2, 2.0, 1.0), placed(0, 3, 1.0, 0.0), placed(2, 3, 1.0, None)],
        "pareto_front": [1, 3],
        "embedding": {"model": "embedder", "model_version": "v2", "usage": {"tokens": 4, "cached_tokens": 0}},
        "curve": [{"n": 1, "proxy": 1.75, "gold": None, "divergence": 0.0}],
    }
    body = score_body(["a", "b", "c", "d"]) | {"results": results_of(1.0, 3.0, 1.0, 2.0)} | choice
    server.before = [httpx.Response(200, json=body)]
    ranking = client.best_of_n(
        "Why?",
        ["a", "b", "c", "a"],
        select="softmax",
        answers=["1", "2", "1", "2"],
        embedding_model="embedder",
        curve=True,
    )
    assert [result.index for result in ranking.ranked] == [1, 3, 0, 2]
    assert ranking.margin == 1.0
    assert ranking.best is not None
    assert (ranking.best.index, ranking.selected, ranking.pareto_front) == (3, (3, 1), (1, 3))
    assert ranking.probabilities == (0.1, 0.2, 0.3, 0.4)
    assert ranking.curve is not None
    assert [(point.n, point.reward, point.divergence) for point in ranking.curve] == [(1, 1.75, 0.0)]
    (request,) = server.requests
    assert request["path"] == "/v1/best-of-n"
    assert (request["prompt"], request["candidates"]) == ("Why?", ["a", "b", "c", "a"])
    assert (request["select"], request["answers"], request["curve"]) == ("softmax", ["1", "2", "1", "2"], True)
    assert (ranking.embedding, request["embedding_model"]) == (EmbeddedBy("embedder", "v2"), "embedder")
    assert "embeddings" not in request


def test_nothing_may_be_good_enough(client: Client, server: Server) -> None:
    def none_of_them(request: httpx.Request) -> httpx.Response:
        body = json.loads(server.best_of_n(json.loads(request.content)).content)
        return httpx.Response(200, json=body | {"best": None, "selected": {"indices": []}})

    server.before = [none_of_them]
    ranking = client.best_of_n("Why?", ["a", "b"], select={"minimum_score": {"threshold": 9}})
    assert ranking.best is None
    assert len(ranking.ranked) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"ranking": []},
        {"selected": {"indices": [2]}},
        {"selected": {"indices": [True]}},
        {"pareto_front": [-1]},
        {"results": []},
    ],
)
def test_a_choice_that_names_no_candidates_is_no_reply(client: Client, server: Server, wrong: dict[str, Any]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(server.best_of_n(json.loads(request.content)).content)
        return httpx.Response(200, json=body | wrong)

    server.before = [answer]
    with pytest.raises(errors.InvalidReply):
        client.best_of_n("Why?", ["a", "b"])


def test_one_candidate_has_no_margin(client: Client, server: Server) -> None:
    assert client.best_of_n([{"role": "user", "content": "Why?"}], ["a"]).margin is None
    assert server.requests[0]["messages"] == [{"role": "user", "content": "Why?"}]


def test_candidates_of_one_prompt_are_one_request(client: Client, server: Server) -> None:
    client.best_of_n("Why?", [str(number) for number in range(300)])
    assert server.sizes() == [300]


def test_many_prompts_are_chosen_for_side_by_side_and_progress_is_told(client: Client, server: Server) -> None:
    told: list[tuple[int, int]] = []
    candidates = [["a", "bb"], ["ccc"], ["d", "ee", "fff"]]
    rankings = client.best_of_n_each(["1", "2", "3"], candidates, progress=lambda *how_far: told.append(how_far))
    assert [len(ranking.results) for ranking in rankings] == [2, 1, 3]
    for responses, ranking in zip(candidates, rankings, strict=True):
        assert [result.reward for result in ranking.results] == [reward_of(response) for response in responses]
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert client.best_of_n_each([], []) == []
    with pytest.raises(ValueError, match="3 prompts and candidates for 1"):
        client.best_of_n_each(["1", "2", "3"], [["a"]])


def test_best_of_n_takes_one_prompt_and_responses_of_one_turn(client: Client, server: Server) -> None:
    with pytest.raises(ValueError, match="one prompt"):
        client.best_of_n(["a", "b"], ["a", "b"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="nothing to choose"):
        client.best_of_n("a", [])
    with pytest.raises(ValueError, match="list"):
        client.best_of_n("a", "b")
    with pytest.raises(ValueError, match="surrogates"):
        client.best_of_n("a", ["\ud800"])
    turn = {"role": "assistant", "content": "b"}
    client.best_of_n("a", ["a", [turn]])
    assert server.requests[0]["candidates"] == ["a", "b"]
    with pytest.raises(errors.InvalidInput, match="single turn") as raised:
        client.best_of_n("a", ["a", [turn, {"role": "user", "content": "c"}]])
    assert raised.value.index == 1


def test_pairs_are_compared(client: Client, server: Server) -> None:
    body = compare_body(results_of(2.0, 0.5, -700.0), results_of(1.0, 0.5, 800.0))
    body["results"][0] |= {"reward_difference": 0.5, "suggestion": "keep"}
    server.before = [httpx.Response(200, json=body)]
    comparisons = client.compare(["p", "q", "r"], ["a", "c", "e"], ["b", "d", "f"], beta=2.0)
    assert [pair.margin for pair in comparisons.pairs] == [1.0, 0.0, -1500.0]
    assert comparisons.accuracy == pytest.approx(1 / 3)
    assert [pair.index for pair in comparisons.pairs] == [0, 1, 2]
    first, second, _ = comparisons.pairs
    assert (first.probability, first.strength.mean, first.strength.deviation) == (0.75, 0.5, 0.25)
    assert (first.reward_difference, first.suggestion, first.unanimous) == (0.5, "keep", True)
    assert (second.reward_difference, second.suggestion) == (None, None)
    (request,) = server.requests
    assert request["path"] == "/v1/compare"
    assert request["beta"] == 2.0
    assert request["pairs"][0] == {"prompt": "p", "chosen": "a", "rejected": "b"}


def test_a_judge_gives_one_result_a_pair(client: Client, server: Server) -> None:
    body = compare_body(results_of(1.0), results_of(0.0))
    (pair,) = body["results"]
    pair["judged"] = pair.pop("chosen") | {"reward": 0.75}
    del pair["rejected"]
    server.before = [httpx.Response(200, json=body)]
    (compared,) = client.compare("p", ["a"], ["b"]).pairs
    assert compared.chosen is compared.rejected is None
    assert compared.judged is not None
    assert compared.judged.reward == 0.75
    del pair["judged"]
    server.before = [httpx.Response(200, json=body)]
    with pytest.raises(errors.InvalidReply, match="neither"):
        client.compare("p", ["a"], ["b"])


def test_pairs_keep_their_sides_over_many_requests(server: Server, clock: Clock) -> None:
    client = Client("http://karat", "m", transport=httpx.MockTransport(server), max_inputs=7, timing=clock.timing())
    chosen = [f"good {number}" for number in range(40)]
    rejected = [f"bad {number}" for number in range(40)]
    prompts = [f"prompt {number}" for number in range(40)]
    comparisons = client.compare(prompts, chosen, rejected)
    sides = [(pair.chosen, pair.rejected) for pair in comparisons.pairs]
    assert [better and better.reward for better, _ in sides] == [reward_of(text) for text in chosen]
    assert [worse and worse.reward for _, worse in sides] == [reward_of(text) for text in rejected]
    assert len(comparisons.request_ids) == 14
    assert max(server.sizes()) == 3
    server.requests.clear()
    # Shares are of all pairs.
    client.compare(prompts, chosen, rejected, cuts={"shares": {"flip": 0.2, "ambiguous": 0.4, "smooth": 0.9}})
    assert server.sizes() == [40]


def test_the_index_of_a_bad_pair_is_that_of_the_pair(client: Client) -> None:
    with pytest.raises(errors.SampleTooLong) as raised:
        client.compare(["p", "q"], ["a", "b"], ["c", "long"])
    assert raised.value.index == 1
    with pytest.raises(errors.InvalidInput, match="input 1: rejected") as refused:
        client.compare(["p", "q"], ["a", "b"], ["c", None])  # type: ignore[list-item]
    assert refused.value.index == 1


def test_sides_must_match(client: Client) -> None:
    with pytest.raises(ValueError, match="2 chosen and 1 rejected"):
        client.compare("p", ["a", "b"], ["c"])
    with pytest.raises(ValueError, match="3 prompts and 1 pairs"):
        client.compare(["p", "q", "r"], ["a"], ["c"])


def test_steps_are_scored_one_by_one(server: Server, clock: Clock) -> None:
    client = Client("http://karat", "m", transport=httpx.MockTransport(server), max_inputs=2, timing=clock.timing())
    steps = [[f"step {number}", "so"] for number in range(5)]
    solved = client.process([f"prompt {number}" for number in range(5)], steps, transforms=["delta"])
    assert [list(result.scores) for result in solved.results] == [[reward_of(step) for step in them] for them in steps]
    assert [result.index for result in solved.results] == list(range(5))
    assert solved.results[0].reductions["min"] == min(solved.results[0].scores)
    assert server.sizes() == [2, 2, 1]
    assert server.requests[0]["path"] == "/v1/process"
    assert server.requests[0]["inputs"][0] == {"prompt": "prompt 0", "steps": steps[0]}
    with pytest.raises(errors.InvalidInput, match="list of steps"):
        client.process("p", ["one", "two"])


def test_as_many_rewards_as_scores_come_back(client: Client, server: Server) -> None:
    def short(request: httpx.Request) -> httpx.Response:
        body = json.loads(server.process(json.loads(request.content)).content)
        body["results"][0]["rewards"] = [1.0]
        return httpx.Response(200, json=body)

    server.before = [short]
    with pytest.raises(errors.InvalidReply, match="2 scores, 1 rewards"):
        client.process("p", [["a", "b"]])


def test_tokens_are_parts_of_the_response(client: Client, server: Server) -> None:
    body = score_body(["I has"])
    body["results"][0]["token_rewards"] = [
        {"position": 1, "text": {"start": 0, "end": 1}, "reward": -0.5},
        {"position": 2, "text": None, "reward": -10},
    ]
    server.before = [httpx.Response(200, json=body)]
    (result,) = client.tokens(prompts="", responses=["I has"]).results
    assert [(token.start, token.end, token.reward) for token in result.token_rewards] == [
        (0, 1, -0.5),
        (None, None, -10),
    ]
    assert server.requests[0]["path"] == "/v1/tokens"
    assert "include" not in server.requests[0]


CARDS = {
    "object": "list",
    "data": [
        {"id": "a", "object": "model", "status": "ready", "version": "v", "max_tokens": 512, "graphs": []},
        {"id": "b", "object": "model", "status": "failed", "reason": "no such file"},
    ],
}


def test_models_are_listed(client: Client, server: Server) -> None:
    server.before = [httpx.Response(200, json=CARDS)]
    ready, failed = client.models()
    assert (ready.id, ready.status, ready.version, ready.max_tokens) == ("a", "ready", "v", 512)
    assert (failed.status, failed.reason, failed.version) == ("failed", "no such file", None)
    assert ready.details["graphs"] == []


def test_a_name_cannot_leave_its_route(client: Client, server: Server) -> None:
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.raw_path)
        return httpx.Response(200, json=CARDS["data"][0])

    server.before = [answer]
    client.model("../score?x")
    assert seen == [b"/v1/models/..%2Fscore%3Fx"]


def health(status: str) -> httpx.Response:
    return httpx.Response(200 if status == "ready" else 503, json={"status": status, "models": {"m": status}})


def test_readiness_is_asked_once(client: Client, server: Server) -> None:
    server.before = [health("loading"), health("ready"), httpx.ConnectError("refused")]
    assert not client.ready()
    assert client.ready()
    with pytest.raises(errors.ConnectionFailed):
        client.ready()
    assert len(server.requests) == 3


def test_a_server_that_starts_is_waited_for(client: Client, server: Server, clock: Clock) -> None:
    page = httpx.Response(502, text="<h1>bad gateway</h1>")
    server.before = [httpx.ConnectError("refused"), page, health("loading"), health("ready")]
    assert client.wait_ready().models == {"m": "ready"}
    assert len(clock.pauses) == 3


def test_waiting_ends_with_the_timeout(client: Client, server: Server, clock: Clock) -> None:
    server.before = [health("loading")] * 100
    with pytest.raises(errors.TimeoutPassed, match="loading"):
        client.wait_ready(timeout=10)
    assert sum(clock.pauses) <= 10


def test_waiting_for_what_failed_ends_at_once(async_client: AsyncClient, server: Server, clock: Clock) -> None:
    server.before = [health("failed")]
    with pytest.raises(errors.ModelsFailed):
        asyncio.run(async_client.wait_ready())
    assert clock.pauses == []


def test_a_judge_of_pairs_tells_both_orders(client: Client, server: Server) -> None:
    body = compare_body(score_body(["a"])["results"], score_body(["b"])["results"])
    (pair,) = body["results"]
    judged = pair.pop("chosen") | {"reward": 0.7}
    del pair["rejected"]
    server.before = [httpx.Response(200, json=body | {"results": [pair | {"judged": judged, "orders": [0.9, 0.5]}]})]
    (compared,) = client.compare("Why?", ["a"], ["b"]).pairs
    assert (compared.chosen, compared.rejected) == (None, None)
    assert compared.judged is not None
    assert (compared.judged.reward, compared.orders) == (0.7, (0.9, 0.5))
