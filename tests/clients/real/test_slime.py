"""slime's remote reward. The PyPI package of that name is an empty one, so this sends what slime's function sends.

The request was recorded from `slime.rollout.rm_hub.remote_rm`: aiohttp's `post(url, json=…)` with prompt, response and
label, one sample a request, whose JSON answer is the reward.
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from tests.clients.real.conftest import CHATS, PAIRS, PROMPTS, RESPONSES, RETEMPLATED, Karat

pytestmark = pytest.mark.client("slime", "recorded requests", "`/slime/scalar` `/slime/dict`")


def ask(url: str, samples: list[tuple[Any, str]]) -> list[Any]:
    async def one(session: aiohttp.ClientSession, prompt: Any, response: str) -> Any:
        payload = {"prompt": prompt, "response": response, "label": None}
        async with session.post(url, json=payload) as reply:
            reply.raise_for_status()
            return await reply.json()

    async def main() -> list[Any]:
        connections = aiohttp.TCPConnector(limit=64)
        async with aiohttp.ClientSession(connector=connections) as session:
            return await asyncio.gather(*[one(session, *sample) for sample in samples])

    return asyncio.run(main())


@pytest.mark.parametrize("model", ["relevance", "harmless", "assistant"])
def test_text_and_messages_get_the_scores_of_their_pairs(model: str, karat: Karat) -> None:
    url = f"{karat.url}/m/{model}/slime"
    samples = list(zip(PROMPTS, RESPONSES, strict=True))
    turns = [([{"role": "user", "content": prompt}], response) for prompt, response in samples]
    expected = karat.rewards(PAIRS, model)
    assert ask(f"{url}/scalar", samples) == expected
    assert ask(f"{url}/scalar", turns) == expected
    assert [reward["score"] for reward in ask(f"{url}/dict", samples)] == expected


def test_a_rendered_prompt_is_taken_apart(karat: Karat) -> None:
    def split(chat: str) -> tuple[str, str]:
        prompt, mark, response = chat.partition("<|im_start|>assistant\n")
        return prompt + mark, response

    rewards = ask(f"{karat.url}/m/{RETEMPLATED}/slime/scalar?prompt=rendered", [split(chat) for chat in CHATS])
    assert rewards == karat.rewards(PAIRS, "harmless")
