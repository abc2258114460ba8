"""OpenAI's client: embeddings that hold a reward, as SGLang's reward models answer."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.clients.real.conftest import PROMPTS, TEXTS, Karat
from tests.clients.real.front import ALWAYS, Front

pytestmark = pytest.mark.client("openai", openai.__version__, "`/v1/embeddings`")


def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none")


@pytest.mark.parametrize("model", ["relevance", "harmless", "assistant"])
# Left out, the client asks for base64 and unpacks it.
@pytest.mark.parametrize("form", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}])
def test_embeddings_hold_the_scores(model: str, form: dict[str, Any], karat: Karat) -> None:
    with client(karat.url) as asked:
        answer = asked.embeddings.create(model=model, input=TEXTS, **form)
    assert [entry.index for entry in answer.data] == list(range(len(TEXTS)))
    if form.get("encoding_format") == "base64":
        assert all(isinstance(entry.embedding, str) for entry in answer.data)
    else:
        assert [entry.embedding[0] for entry in answer.data] == karat.rewards([{"text": text} for text in TEXTS], model)
    assert answer.usage.prompt_tokens > len(PROMPTS)


@pytest.mark.parametrize("status", [408, 429, 503])
def test_a_refusal_is_tried_again_twice(status: int, karat: Karat) -> None:
    with Front(karat.url, status, times=2) as front, client(front.url) as asked:
        answer = asked.embeddings.create(model="harmless", input=TEXTS)
    assert front.requests == 3
    assert [entry.embedding[0] for entry in answer.data] == karat.rewards(
        [{"text": text} for text in TEXTS], "harmless"
    )


def test_what_the_client_should_change_is_raised_at_once(karat: Karat) -> None:
    with Front(karat.url, 400, ALWAYS) as front, client(front.url) as asked, pytest.raises(openai.BadRequestError):
        asked.embeddings.create(model="harmless", input=TEXTS)
    assert front.requests == 1
    with client(karat.url) as asked, pytest.raises(openai.BadRequestError, match="at most 512"):
        asked.embeddings.create(model="harmless", input=["because " * 1000])
