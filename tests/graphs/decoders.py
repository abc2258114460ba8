"""Builds the tiny decoders of the integration tests: `.venv/bin/python -m tests.graphs.decoders`.

They are Llamas of two layers with random weights, as graphs of contract `rm-prefix/1`. `tiny_decoder_scores.onnx` has
two reward heads; `tiny_decoder_lm.onnx` gives the logits of its tied embeddings, and its last states;
`tiny_decoder_reference.onnx` gives the logits of other weights, for heads that compare two decoders. What they
must give stands in `tiny_decoders.json`, from the plain numpy implementation, and what the heads that ask a language
model must make of it in `tiny_decoder_heads.json`. All are committed, so that the Rust tests need no Python; run
this after a change and commit what it writes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tests.graphs import decoder_heads
from tools.decoder.config import DecoderConfig
from tools.decoder.graph import build
from tools.decoder.random_weights import random_weights
from tools.decoder.reference import Reference, log_softmax
from tools.decoder.weights import ArrayWeights
from tools.metrics import write_json

FOLDER = Path(__file__).parent
# Ids up to 299 are those of the tests' tokenizer; 320 leave room for bytes and a few marks.
SCORES = DecoderConfig(
    family="llama",
    kind="sequence",
    hidden=16,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=4,
    intermediate=32,
    vocabulary=320,
    context=2048,
    norm_epsilon=1e-5,
    rope_theta=10_000.0,
    labels=2,
)
LANGUAGE_MODEL = replace(SCORES, kind="language_model", labels=0, tied_embeddings=True)
LENGTHS = (1, 2, 7, 33, 150)
GREEDY_TOKENS = 12


def texts() -> list[list[int]]:
    """Token ids from 10 to 299, which the tests' tokenizer makes of the numbers of the same name."""
    generator = np.random.default_rng(41)
    return [generator.integers(10, 300, length).tolist() for length in LENGTHS]


def numbers(values: np.ndarray) -> list[float]:
    """Values with as many digits as float32 tells apart."""
    return [float(f"{value:.8g}") for value in values.ravel()]


def score_cases(reference: Reference) -> list[dict[str, Any]]:
    """Both heads' scores at every token of each text."""
    return [{"ids": ids, "scores": [numbers(row) for row in reference.scores(ids)]} for ids in texts()]


def logit_cases(reference: Reference) -> list[dict[str, Any]]:
    """What each text makes of its own next tokens, what its last token sees, and how it goes on greedily."""
    cases = []
    for ids in texts():
        logits = reference.logits(ids)
        log_probabilities = log_softmax(logits)[np.arange(len(ids) - 1), ids[1:]]
        continued = list(ids)
        for _ in range(GREEDY_TOKENS):
            continued.append(int(reference.logits(continued)[-1].argmax()))
        cases.append(
            {
                "ids": ids,
                "next_token_log_probabilities": numbers(log_probabilities),
                "last_logits": numbers(logits[-1]),
                "last_hidden": numbers(reference.hidden(ids)[-1]),
                "greedy": continued[len(ids) :],
            }
        )
    return cases


def rounded(value: Any) -> Any:
    """Numbers with as many digits as float32 tells apart, however deep they are."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return float(f"{value:.8g}") if isinstance(value, float) else value


def written(name: str, config: DecoderConfig, outputs: tuple[str, ...], seed: int) -> Reference:
    """Writes a graph beside this file; the same decoder in numpy."""
    weights = ArrayWeights(random_weights(config, seed))
    model = build(config, weights, outputs)
    onnx.checker.check_model(model, full_check=True)
    (FOLDER / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))
    return Reference(config, weights)


def main() -> None:
    """Writes the graphs and what they must give beside this file."""
    scores = written("tiny_decoder_scores", SCORES, ("scores",), seed=5)
    policy = written("tiny_decoder_lm", LANGUAGE_MODEL, ("logits", "hidden"), seed=5)
    reference = written("tiny_decoder_reference", LANGUAGE_MODEL, ("logits",), seed=6)
    golden = {
        "tiny_decoder_scores": score_cases(scores),
        "tiny_decoder_lm": logit_cases(policy),
    }
    write_json(FOLDER / "tiny_decoders.json", golden)
    heads = decoder_heads.cases(decoder_heads.Decoders(policy, reference))
    write_json(FOLDER / "tiny_decoder_heads.json", rounded(heads))


if __name__ == "__main__":
    main()
