"""Builds the tiny decoders of the integration tests, and records what Transformers makes of them.

`PYTHONPATH=.:python python -m tests.graphs.decoders` needs torch, transformers, tokenizers and safetensors, which
nothing else here does: install them into an environment of their own. Recorded with torch 2.15.0 and transformers
5.24.0 on a CPU, eagerly in 64 bits.

They are Llamas of two layers with random weights, as checkpoint folders. `tiny_decoder_scores` has two reward heads;
`tiny_decoder_lm` gives the logits of its tied embeddings; `tiny_decoder_reference`, in shards, is of other weights, for
heads that compare two decoders. What they must give stands in `tiny_decoders.json`, and what the heads that ask a
language model must make of it in `tiny_decoder_heads.json`. The `.onnx` files beside two of the folders are their
graphs, for tests that open one:

    cargo run -p karat-checkpoint --example onnx tests/graphs/tiny_decoder_lm tests/graphs/tiny_decoder_lm.onnx

All are committed, so that the Rust tests need no Python.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from tests.graphs import decoder_heads
from tools.metrics import write_json
from tools.random_llama import random_llama, write_checkpoint

FOLDER = Path(__file__).parent
# Ids up to 299 are those of the tests' tokenizer; 320 leave room for bytes and a few marks.
SHAPE: dict[str, Any] = {
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "intermediate_size": 32,
    "vocab_size": 320,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
}
SCORES = SHAPE | {"architectures": ["LlamaForSequenceClassification"], "num_labels": 2}
LANGUAGE_MODEL = SHAPE | {"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": True}
VOCABULARY = {"[CLS]": 1, "[SEP]": 2, "[UNK]": 3, "[PAD]": 9} | {str(number): number for number in range(10, 300)}
TOKENIZER: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": {"type": "Whitespace"},
    "post_processor": None,
    "decoder": None,
    "model": {"type": "WordLevel", "vocab": VOCABULARY, "unk_token": "[UNK]"},
}
LENGTHS = (1, 2, 7, 33, 150)
GREEDY_TOKENS = 12


class Recorded:
    """A checkpoint in Transformers."""

    def __init__(self, folder: Path) -> None:
        kind = getattr(transformers, transformers.AutoConfig.from_pretrained(folder).architectures[0])
        self._model = kind.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()

    def hidden(self, ids: list[int]) -> np.ndarray:
        """The state at each token after the final norm, `[tokens, hidden]`."""
        with torch.no_grad():
            return self._model.model(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()

    def logits(self, ids: list[int]) -> np.ndarray:
        """Of the token that follows each token, `[tokens, vocabulary]`."""
        with torch.no_grad():
            return self._model(input_ids=torch.tensor([ids])).logits[0].numpy()

    def scores(self, ids: list[int]) -> np.ndarray:
        """What the heads read at each token, `[tokens, heads]`."""
        with torch.no_grad():
            return self._model.score(torch.tensor(self.hidden(ids))).numpy()


def texts() -> list[list[int]]:
    """Token ids from 10 to 299, which the tests' tokenizer makes of the numbers of the same name."""
    generator = np.random.default_rng(41)
    return [generator.integers(10, 300, length).tolist() for length in LENGTHS]


def numbers(values: np.ndarray) -> list[float]:
    """Values with as many digits as float32 tells apart."""
    return [float(f"{value:.8g}") for value in values.ravel()]


def score_cases(decoder: Recorded) -> list[dict[str, Any]]:
    """Both heads' scores at every token of each text."""
    return [{"ids": ids, "scores": [numbers(row) for row in decoder.scores(ids)]} for ids in texts()]


def logit_cases(decoder: Recorded) -> list[dict[str, Any]]:
    """What each text makes of its own next tokens, what its last token sees, and how it goes on greedily."""
    cases = []
    for ids in texts():
        logits = decoder.logits(ids)
        log_probabilities = decoder_heads.log_softmax(logits)[np.arange(len(ids) - 1), ids[1:]]
        continued = list(ids)
        for _ in range(GREEDY_TOKENS):
            continued.append(int(decoder.logits(continued)[-1].argmax()))
        cases.append(
            {
                "ids": ids,
                "next_token_log_probabilities": numbers(log_probabilities),
                "last_logits": numbers(logits[-1]),
                "last_hidden": numbers(decoder.hidden(ids)[-1]),
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


def written(name: str, configuration: dict[str, Any], seed: int, shards: int = 1) -> Recorded:
    """Writes a checkpoint beside this file; the same in Transformers."""
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    tensors = random_llama(configuration, seed)
    write_checkpoint(FOLDER / name, configuration, tensors, TOKENIZER, settings, shards)
    return Recorded(FOLDER / name)


def main() -> None:
    """Writes the checkpoints and what they must give beside this file."""
    scores = written("tiny_decoder_scores", SCORES, seed=5)
    policy = written("tiny_decoder_lm", LANGUAGE_MODEL, seed=5)
    reference = written("tiny_decoder_reference", LANGUAGE_MODEL, seed=6, shards=2)
    golden = {
        "tiny_decoder_scores": score_cases(scores),
        "tiny_decoder_lm": logit_cases(policy),
    }
    write_json(FOLDER / "tiny_decoders.json", golden)
    heads = decoder_heads.cases(decoder_heads.Decoders(policy, reference))
    write_json(FOLDER / "tiny_decoder_heads.json", rounded(heads))


if __name__ == "__main__":
    main()
