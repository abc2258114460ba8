"""Triton's clients over HTTP and gRPC."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
import tritonclient.utils

from tests.clients.real.conftest import PAIRS, PROMPTS, RESPONSES, TEXTS, Karat
from tests.clients.real.front import ALWAYS, Front

KINDS = [
    pytest.param(
        kind, marks=pytest.mark.client(f"tritonclient[{kind}]", version("tritonclient"), f"{where} `/v2/…`".strip())
    )
    for kind, where in (("http", ""), ("grpc", ""))
]


def library(kind: str) -> Any:
    return {"http": tritonclient.http, "grpc": tritonclient.grpc}[kind]


def client(kind: str, karat: Karat | Front) -> Any:
    return library(kind).InferenceServerClient(karat.url.removeprefix("http://"))


def texts(kind: str, name: str, values: list[str]) -> Any:
    tensor = library(kind).InferInput(name, [len(values), 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[value.encode()] for value in values], dtype=object))
    return tensor


def rewards(answer: Any, output: str = "rewards") -> list[float]:
    values = answer.as_numpy(output)
    assert values.dtype == np.float32
    return [float(value) for value in values[:, 0]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", ["relevance", "harmless", "assistant"])
def test_tensors_get_the_scores_of_their_texts(kind: str, model: str, karat: Karat) -> None:
    with client(kind, karat) as triton:
        alone = triton.infer(model, [texts(kind, "sentences", TEXTS)])
        apart = triton.infer(model, [texts(kind, "prompt", PROMPTS), texts(kind, "response", RESPONSES)])
    assert rewards(alone) == karat.rewards([{"text": text} for text in TEXTS], model)
    assert rewards(apart) == karat.rewards(PAIRS, model)


@pytest.mark.parametrize("kind", KINDS)
def test_rules_and_outputs_are_chosen(kind: str, karat: Karat) -> None:
    chosen: dict[str, Any] = {"aggregate": "worst_case"}
    wanted = [library(kind).InferRequestedOutput(name) for name in ("rewards", "members")]
    with client(kind, karat) as triton:
        options = {"query_params": chosen} if kind == "http" else {"parameters": chosen}
        answer = triton.infer("harmless", [texts(kind, "text", TEXTS)], outputs=wanted, **options)
    expected = karat.rewards([{"text": text} for text in TEXTS], "harmless", aggregate="worst_case")
    assert rewards(answer) == expected
    assert answer.as_numpy("members").shape == (len(TEXTS), 5)
    assert [float(worst) for worst in answer.as_numpy("members").min(axis=1)] == expected
    assert answer.as_numpy("variance") is None


@pytest.mark.parametrize("kind", KINDS)
def test_the_server_tells_about_itself(kind: str, karat: Karat) -> None:
    with client(kind, karat) as triton:
        assert triton.is_server_live()
        assert triton.is_server_ready()
        assert triton.is_model_ready("harmless")
        as_json = {} if kind == "http" else {"as_json": True}
        metadata = triton.get_model_metadata("harmless", **as_json)
        config = triton.get_model_config("harmless", **as_json)
        index = triton.get_model_repository_index(**as_json)
        assert triton.get_server_metadata(**as_json)["name"] == "karat"
    config = config if kind == "http" else config["config"]
    index = index if kind == "http" else index["models"]
    assert metadata["name"] == config["name"] == "harmless"
    assert {"sentences", "text"} <= {tensor["name"] for tensor in metadata["inputs"]}
    assert {"harmless", "relevance"} <= {entry["name"] for entry in index}


@pytest.mark.parametrize("kind", KINDS)
def test_a_mistake_is_told(kind: str, karat: Karat) -> None:
    with client(kind, karat) as triton:
        with pytest.raises(tritonclient.utils.InferenceServerException, match="nobody"):
            triton.infer("nobody", [texts(kind, "text", TEXTS)])
        with pytest.raises(tritonclient.utils.InferenceServerException, match="at most 512"):
            triton.infer("harmless", [texts(kind, "text", ["because " * 1000])])


@pytest.mark.client("tritonclient[http]", version("tritonclient"), "`/v2/…`")
@pytest.mark.parametrize("status", [400, 429, 503])
def test_every_refusal_is_raised_at_once(status: int, karat: Karat) -> None:
    with (
        Front(karat.url, status, ALWAYS) as front,
        client("http", front) as triton,
        pytest.raises(tritonclient.utils.InferenceServerException),
    ):
        triton.infer("harmless", [texts("http", "text", TEXTS)])
    assert front.requests == 1
