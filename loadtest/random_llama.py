"""Writes the random Llama-shaped classifier on which Best-of-N is measured.

39 million parameters: 8 layers, hidden size 512, 8 heads of which 2 hold keys
and values, MLP 1,408, 32,000 tokens. Three models of a repository, all on one
weight file: `llama-shared` (one head, contract `rm-prefix/1`), `llama-five`
(five heads, the same) and `llama-classic` (one head, a padded batch). Token n is
the word `tn`, so that a text can be written token by token.

    .venv/bin/python -m loadtest.random_llama --output .karat/loadtest/llama
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tools.decoder.checkpoint import Checkpoint, SpecialTokens
from tools.decoder.classic import build_classic
from tools.decoder.config import DecoderConfig
from tools.decoder.conversion import link_or_copy
from tools.decoder.folder import WEIGHTS, WithHeads, with_heads, write_folder
from tools.decoder.random_weights import random_weights
from tools.decoder.weights import SafetensorsWeights
from tools.onnx_file import write_model
from tools.tokenizer_file import write_tokenizer

SEED = 8
CONTEXT = 4096
CONFIG = DecoderConfig(
    family="llama",
    kind="language_model",
    hidden=512,
    layers=8,
    heads=8,
    kv_heads=2,
    head_dim=64,
    intermediate=1408,
    vocabulary=32_000,
    context=CONTEXT,
    norm_epsilon=1e-5,
    rope_theta=10_000.0,
    tied_embeddings=True,
)
MANIFEST = """\
description = "A random classifier, for measuring"
head = {head}

[graph]
file = "model.onnx"
output = "{output}"

[text]
tokenizer = "tokenizer.json"
render = {{ jinja = "{{% for message in messages %}}{{{{ message['content'] }}}} {{% endfor %}}" }}
pad_token = "t0"
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
            "vocab": {f"t{index}": index for index in range(CONFIG.vocabulary)},
            "unk_token": "t0",
        },
    }


def random_heads(count: int) -> dict[str, np.ndarray]:
    """The first `count` of five random heads."""
    weight = np.random.default_rng(SEED).standard_normal((5, CONFIG.hidden))
    return {"score.weight": (weight[:count] / np.sqrt(CONFIG.hidden)).astype(np.float32)}


def write_manifest(folder: Path, head: str, output: str) -> None:
    """Writes the `model.toml` of one of the three."""
    (folder / "model.toml").write_text(MANIFEST.format(head=head, output=output, context=CONTEXT))


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Write the random classifier of the Best-of-N runs.")
    parser.add_argument("--output", type=Path, default=Path(".karat/loadtest/llama"))
    repository = parser.parse_args().output
    repository.mkdir(parents=True, exist_ok=True)
    trunk = repository / WEIGHTS
    save_file(random_weights(CONFIG, SEED), trunk)
    checkpoint = Checkpoint(CONFIG, SafetensorsWeights([trunk]), tokenizer(), SpecialTokens(), None, (trunk,))
    for name, count, head in (
        ("llama-shared", 1, '"scalar"'),
        ("llama-five", 5, "{ multi = { members = 5 } }"),
    ):
        write_folder(checkpoint, repository / name, random_heads(count))
        write_manifest(repository / name, head, "scores")

    folder = repository / "llama-classic"
    link_or_copy(trunk, folder / WEIGHTS)
    heads = random_heads(1)
    weights = WithHeads(SafetensorsWeights([folder / WEIGHTS]), heads)
    write_model(build_classic(with_heads(CONFIG, heads), weights), folder / "model.onnx")
    write_tokenizer(tokenizer(), folder / "tokenizer.json")
    write_manifest(folder, '"scalar"', "logits")
    parameters = sum(np.prod(weights.shape(name)) for name in weights.names())
    print(json.dumps({"repository": str(repository), "parameters": int(parameters)}))


if __name__ == "__main__":
    main()
