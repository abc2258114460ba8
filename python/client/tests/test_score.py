"""Scoring: what is sent, how lists are split, and what comes back."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from in_memory import Clock, Server, problem, reward_of, score_body
from karat_client import AsyncClient, Client, errors, transforms
from karat_client.aggregates import uncertainty_weighted


def made(server: Server, clock: Clock, **options: Any) -> Client:
    return Client("http://karat", "m", transport=httpx.MockTransport(server), timing=clock.timing(), **options)


def test_options_and_inputs_reach_the_wire(client: Client, server: Server) -> None:
    client.score(
        prompts="Why?",
        responses=["So.", [{"role": "assistant", "content": "Because.", "tool_calls": []}]],
        model="harmless",
        aggregate=uncertainty_weighted(0.5),
        transforms=[transforms.log_sigmoid(0.3), transforms.clip(minimum=-5)],
        truncation="prompt_start",
        include=["members"],
        priority="low",
        timeout=2.5,
    )
    assert server.requests == [
        {
            "path": "/v1/score",
            "model": "harmless",
            "aggregate": {"uncertainty_weighted": {"lambda": 0.5}},
            "transforms": [{"log_sigmoid": {"reference": 0.3}}, {"clip": {"min": -5}}],
            "truncation": "prompt_start",
            "include": ["members"],
            "priority": "low",
            "timeout_ms": 2500,
            "inputs": [
                {"prompt": "Why?", "response": "So."},
                {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]},
            ],
        }
    ]


def test_what_is_left_out_is_left_to_the_manifest(client: Client, server: Server) -> None:
    client.score(texts=["a"])
    assert server.requests[0].keys() == {"path", "model", "timeout_ms", "inputs"}
    client.score(texts=["a"], transforms=[])
    assert server.requests[1]["transforms"] == []


def test_text_parts_are_joined(client: Client, server: Server) -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    client.score(messages=[[{"role": "user", "content": "?"}, {"role": "assistant", "content": parts}]])
    assert server.requests[0]["inputs"][0]["messages"][1] == {"role": "assistant", "content": "one two"}


def test_a_long_list_is_split_and_its_order_kept(server: Server, clock: Clock) -> None:
    client = made(server, clock, max_inputs=10, max_concurrency=4)
    texts = [f"text {number:04}" for number in range(95)]
    scores = client.score(texts=texts)
    assert sorted(server.sizes()) == [5] + [10] * 9
    assert scores.rewards == [reward_of(text) for text in texts]
    assert [result.index for result in scores.results] == list(range(95))
    assert scores.usage.tokens == 95 * 9
    assert len(scores.request_ids) == 10


def test_a_list_is_split_by_bytes(server: Server, clock: Clock) -> None:
    client = made(server, clock, max_bytes=250)
    client.score(texts=[letter * 50 for letter in "éàèö"])
    assert server.sizes() == [2, 2]


def test_answers_to_one_prompt_stay_together(server: Server, clock: Clock) -> None:
    client = made(server, clock, max_inputs=3)
    prompts = ["a", "b", "a", "b", "a", "c", "a"]
    responses = [f"answer {number}" for number in range(7)]
    scores = client.score(prompts=prompts, responses=responses)
    sent = [{entry["prompt"] for entry in request["inputs"]} for request in server.requests]
    assert sorted(map(sorted, sent)) == [["a"], ["b", "c"]]
    assert scores.rewards == [reward_of(response) for response in responses]


def test_no_more_requests_are_on_their_way_than_allowed(server: Server, clock: Clock) -> None:
    at_once, most = 0, 0

    class Transport(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0)
            at_once -= 1
            return server(request)

    async def main() -> None:
        async with AsyncClient("http://karat", "m", transport=Transport(), max_inputs=1, max_concurrency=3) as client:
            many = client.score(texts=[str(number) for number in range(20)])
            single = [client.score(texts=[str(number)]) for number in range(20)]
            await asyncio.gather(many, *single)

    asyncio.run(main())
    assert most == 3
    assert len(server.requests) == 40


def test_async_scores_are_those_of_the_blocking_client(client: Client, async_client: AsyncClient) -> None:
    texts = [f"text {number}" for number in range(200)]
    assert asyncio.run(async_client.score(texts=texts)) == client.score(texts=texts)


@pytest.mark.parametrize(
    "call",
    [
        {},
        {"prompts": "a"},
        {"responses": ["a"]},
        {"texts": ["a"], "messages": [[]]},
        {"prompts": ["a"], "responses": ["a"], "texts": ["a"]},
        {"texts": []},
        {"texts": "not a list"},
        {"prompts": "a", "responses": "not a list"},
        {"prompts": ["a", "b"], "responses": ["a"]},
        {"texts": ["a"], "timeout": 0},
        {"texts": ["a"], "timeout": float("inf")},
    ],
)
def test_calls_that_make_no_sense_are_refused_unsent(client: Client, server: Server, call: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the message differs, that nothing is sent is what counts
        client.score(**call)
    assert server.requests == []


def test_a_misspelt_option_is_refused(client: Client) -> None:
    with pytest.raises(TypeError, match="agregate"):
        client.score(texts=["a"], agregate="mean")  # type: ignore[call-arg]


def test_a_model_must_be_named(server: Server) -> None:
    with pytest.raises(ValueError, match="no model is named"):
        Client("http://karat", transport=httpx.MockTransport(server)).score(texts=["a"])


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": None, "tool_calls": [{}]},
        {"role": "developer", "content": "x"},
        {"role": "assistant", "content": [{"type": "video_url", "video_url": "x"}]},
        {"role": "assistant", "content": "\ud800"},
        "just text",
    ],
)
def test_what_cannot_be_sent_names_its_place(client: Client, server: Server, message: Any) -> None:
    good = [{"role": "assistant", "content": "x"}]
    with pytest.raises(errors.InvalidInput) as raised:
        client.score(messages=[good, [message]])
    assert raised.value.index == 1
    assert server.requests == []


def test_the_index_of_a_problem_is_that_of_the_callers_list(server: Server, clock: Clock) -> None:
    client = made(server, clock, max_inputs=4)
    texts = [f"text {number}" for number in range(20)]
    texts[13] = "long story"
    with pytest.raises(errors.SampleTooLong) as raised:
        client.score(texts=texts)
    assert raised.value.index == 13
    assert "input 13" in str(raised.value)


def test_what_is_at_fault_does_not_fail_the_others(server: Server, clock: Clock) -> None:
    client = made(server, clock, max_inputs=4)
    texts: list[Any] = [f"text {number}" for number in range(10)]
    texts[1], texts[3], texts[8], texts[9] = " ", "long story", "\ud800", 7
    scores = client.try_score(texts=texts)
    expected = [None if place in (1, 3, 8, 9) else reward_of(text) for place, text in enumerate(texts)]
    assert scores.rewards == expected
    assert [refusal.index for refusal in scores.refusals] == [1, 3, 8, 9]
    kinds = [errors.InvalidRequest, errors.SampleTooLong, errors.InvalidInput, errors.InvalidInput]
    assert [type(refusal) for refusal in scores.refusals] == kinds


def test_nothing_scored_is_told(client: Client) -> None:
    scores = client.try_score(texts=[" ", "long"])
    assert scores.rewards == [None, None]
    assert scores.model_version is None


def test_a_refusal_that_names_no_input_fails_all(client: Client, server: Server) -> None:
    server.before = [problem(404, "unknown-model", "there is no model m")]
    with pytest.raises(errors.UnknownModel):
        client.try_score(texts=["a"])


def test_parts_of_different_versions_are_scored_again(server: Server, clock: Clock) -> None:
    client = made(server, clock, max_inputs=1, max_concurrency=1)
    server.before = [httpx.Response(200, json=score_body(["a"], "old"))]
    scores = client.score(texts=["a", "b"])
    assert scores.model_version == "v1"
    assert scores.rewards == [reward_of("a"), reward_of("b")]
    assert len(server.requests) == 4


def test_a_rollout_is_waited_out(server: Server, clock: Clock) -> None:
    """Two replicas hold different versions, as a balancer that looks at the prompt always finds them."""
    client = made(server, clock, max_inputs=1, max_concurrency=1, timeout=300.0)

    def replica(request: httpx.Request) -> httpx.Response:
        text = json.loads(request.content)["inputs"][0]["text"]
        return httpx.Response(200, json=score_body([text], "old" if text == "a" and clock.now < 1060 else "new"))

    server.before = [replica] * 100
    scores = client.score(texts=["a", "b"])
    assert scores.model_version == "new"
    assert scores.rewards == [reward_of("a"), reward_of("b")]
    assert 1060 <= clock.now < 1090


def test_refused_inputs_go_with_any_version(server: Server, clock: Clock) -> None:
    client = made(server, clock, max_inputs=1, max_concurrency=1)
    server.before = [
        httpx.Response(200, json=score_body(["a"], "old")),
        httpx.Response(200, json=score_body(["b"], "new")),
    ]
    scores = client.try_score(texts=["a", "b", "long"])
    assert scores.rewards == [reward_of("a"), reward_of("b"), None]
    assert [refusal.index for refusal in scores.refusals] == [2]
    assert len(server.requests) == 5


def test_versions_that_go_on_differing_are_an_error(server: Server, clock: Clock) -> None:
    client = made(server, clock, max_inputs=1, max_concurrency=1, timeout=60.0)

    def replica(request: httpx.Request) -> httpx.Response:
        text = json.loads(request.content)["inputs"][0]["text"]
        return httpx.Response(200, json=score_body([text], "old" if text == "a" else "new"))

    server.before = [replica] * 100
    with pytest.raises(errors.VersionsDiffer) as raised:
        client.score(texts=["a", "b"])
    assert raised.value.versions == ("new", "old")
    assert clock.now <= 1060, "the call's timeout holds"


def test_equal_prompts_have_equal_digests(server: Server, clock: Clock) -> None:
    digests: list[str] = []

    def note(request: httpx.Request) -> httpx.Response:
        digests.append(request.headers["x-karat-prefix"])
        return server.score(json.loads(request.content))

    client = made(server, clock)
    server.before = [note] * 4
    client.score(prompts=["why?"], responses=["a"])
    client.score(prompts=[[{"role": "user", "content": "why?"}]], responses=["b"])
    client.score(messages=[[{"role": "user", "content": "why?"}, {"role": "assistant", "content": "c"}]])
    client.score(prompts=["how?"], responses=["a"])
    # printf 'user\\0why?\\0' | sha256sum
    assert digests[:3] == ["af6fcb61efa10c68"] * 3
    assert digests[3] != digests[0]


def reply(**changes: Any) -> dict[str, Any]:
    body = score_body(["a"])
    body["results"][0].update(changes)
    return body


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>a proxy's page</html>",
        b"[]",
        b"{}",
        json.dumps(reply(reward=None)).encode(),
        json.dumps(reply(reward="1.0")).encode(),
        json.dumps(reply(reward=True)).encode(),
        json.dumps(reply(reward=float("nan"))).encode(),
        json.dumps(reply(reward=float("-inf"))).encode(),
        json.dumps(reply(reward=0)).replace('"reward": 0', '"reward": 1e999').encode(),
        json.dumps(reply(reward=0)).replace('"reward": 0', '"reward": ' + "9" * 400).encode(),
        json.dumps(reply(index=1)).encode(),
        json.dumps(reply(ensemble=None)).encode(),
        json.dumps(score_body([])).encode(),
        json.dumps(score_body(["a", "b"])).encode(),
        json.dumps({**score_body(["a"]), "model_version": None}).encode(),
    ],
)
def test_a_reply_without_a_proper_score_is_an_error(client: Client, server: Server, content: bytes) -> None:
    server.before = [httpx.Response(200, content=content)]
    with pytest.raises(errors.InvalidReply):
        client.score(texts=["a"])


def test_a_reply_that_cannot_be_decompressed_is_an_error(client: Client, server: Server) -> None:
    def garbled(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(b"not gzip"))

    server.before = [garbled]
    with pytest.raises(errors.InvalidReply):
        client.score(texts=["a"])


def test_a_result_carries_all_that_the_server_says(client: Client, server: Server) -> None:
    ensemble = {"mean": 1.5, "worst_case": 1, "variance": 0.25, "members": [1, 2]}
    cut = {"prompt_tokens": 3, "response_tokens": 0}
    server.before = [httpx.Response(200, json=reply(ensemble=ensemble, cut=cut, truncated=True, new_field=1))]
    (result,) = client.score(texts=["a"]).results
    assert result.ensemble.members == (1.0, 2.0)
    assert result.ensemble.disagreement == 0.5
    assert result.truncated
    assert result.cut is not None
    assert result.cut.prompt_tokens == 3


def test_the_path_of_the_address_stays(server: Server) -> None:
    with Client("http://karat/behind/proxy", "m", transport=httpx.MockTransport(server)) as client:
        client.score(texts=["a"])
    assert server.requests[0]["path"] == "/behind/proxy/v1/score"


def test_an_address_needs_its_scheme() -> None:
    with pytest.raises(ValueError, match="scheme"):
        Client("localhost:8080")
