"""Critiques through the Python client, written by a tiny language model that the real server holds."""

from __future__ import annotations

import asyncio
import json
from itertools import takewhile

import pytest

from karat_client import AsyncClient, Client, CritiqueOptions, errors
from tests.server_files import ROOT

GRAPHS = ROOT / "tests/graphs"


def recorded() -> tuple[str, str, list[int]]:
    """A prompt, a response, and how a plain numpy implementation goes on from them, as far as tokens have names."""
    cases = json.loads((GRAPHS / "tiny_decoders.json").read_text())["tiny_decoder_lm"]
    named = set(range(10, 300))
    case = max(
        (case for case in cases if len(case["ids"]) > 1 and named.issuperset(case["ids"])),
        key=lambda case: len(list(takewhile(named.__contains__, case["greedy"]))),
    )
    *prompt, response = map(str, case["ids"])
    return " ".join(prompt), response, list(takewhile(named.__contains__, case["greedy"]))


def test_a_critique_is_what_the_model_writes(critic: str) -> None:
    prompt, response, greedy = recorded()
    with Client(critic, "critic") as client:
        assert len(greedy) > 3
        whole = client.critique(prompt, response, max_tokens=len(greedy))
        assert [int(word) for word in whole.critiques[0].text.split()] == greedy
        # The critique is scored as the answer to the question that it answered.
        question = [{"role": "user", "content": f"{prompt} {response}"}]
        scored = client.score(prompts=[question], responses=[whole.critiques[0].text])
        assert whole.reward == pytest.approx(scored.rewards[0], abs=1e-5)
        assert whole.model_version == whole.scorer_version == scored.model_version


def test_a_stream_comes_to_the_same(critic: str) -> None:
    options = CritiqueOptions(critiques=3, temperature=1.0, seed=5, max_tokens=8)

    async def awaited() -> list[str]:
        async with AsyncClient(critic, "critic") as client, client.critique_stream("20 30", "40", **options) as stream:
            texts = [""] * 3
            async for piece in stream:
                texts[piece.index] += piece.text
            assert [critique.text for critique in stream.result.critiques] == texts
            return texts

    with Client(critic, "critic") as client:
        whole = client.critique("20 30", "40", **options)
        with client.critique_stream("20 30", "40", **options) as stream:
            texts = [""] * 3
            for piece in stream:
                texts[piece.index] += piece.text
        assert [critique.text for critique in whole.critiques] == texts == asyncio.run(awaited())
        assert stream.result.reward == pytest.approx(whole.reward, abs=1e-5)


def test_what_is_refused(critic: str) -> None:
    with Client(critic, "critic") as client:
        with pytest.raises(errors.InvalidRequest, match="temperature"):
            client.critique("20", "30", critiques=2)
        with pytest.raises(errors.UnknownModel), client.critique_stream("20", "30", model="nobody"):
            pass
