"""Writes the random Llama-shaped classifier on which Best-of-N is measured.

39 million parameters: 8 layers, hidden size 512, 8 heads of which 2 hold keys
and values, MLP 1,408, 32,000 tokens. Two checkpoint folders of a repository:
`llama-shared` with one head and `llama-five` with five, on the same weights.
Token n is the word `tn`, so that a text can be written token by token.

    .venv/bin/python -m loadtest.random_llama --output .karat/loadtest/llama
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from tools.random_llama import random_llama, write_checkpoint

SEED = 8
VOCABULARY = 32_000
CONFIGURATION: dict[str, Any] = {
    "architectures": ["LlamaForSequenceClassification"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 512,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "intermediate_size": 1408,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
}
SETTINGS = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "t0", "unk_token": "t0"}
MANIFEST = """\
description = "A random classifier, for measuring"
head = {head}

[graph]
checkpoint = "."

[text]
render = {{ jinja = "{{% for message in messages %}}{{{{ message['content'] }}}} {{% endfor %}}" }}
max_tokens = {context}
"""


def tokenizer() -> dict[str, Any]:
    """A token for each of the words `t0` to `t31999`."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {f"t{index}": index for index in range(VOCABULARY)},
            "unk_token": "t0",
        },
    }


def random_heads(count: int) -> dict[str, np.ndarray]:
    """The first `count` of five random heads."""
    hidden = CONFIGURATION["hidden_size"]
    weight = np.random.default_rng(SEED).standard_normal((5, hidden))
    return {"score.weight": (weight[:count] / np.sqrt(hidden)).astype(np.float32)}


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Write the random classifier of the Best-of-N runs.")
    parser.add_argument("--output", type=Path, default=Path(".karat/loadtest/llama"))
    repository = parser.parse_args().output
    trunk = random_llama(CONFIGURATION, SEED)
    for name, count, head in (
        ("llama-shared", 1, '"scalar"'),
        ("llama-five", 5, "{ multi = { members = 5 } }"),
    ):
        labels = {"id2label": {str(index): f"LABEL_{index}" for index in range(count)}}
        folder = repository / name
        write_checkpoint(folder, CONFIGURATION | labels, trunk | random_heads(count), tokenizer(), SETTINGS)
        manifest = MANIFEST.format(head=head, context=CONFIGURATION["max_position_embeddings"])
        (folder / "model.toml").write_text(manifest)
    parameters = sum(tensor.size for tensor in (trunk | random_heads(1)).values())
    print(json.dumps({"repository": str(repository), "parameters": parameters}))


if __name__ == "__main__":
    main()
