"""Llamas of random weights, the same ones for the same seed on every machine."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tools.safetensors_file import Tensor, write_safetensors

# Small beside what a layer adds, or tied embeddings would answer with the last token again.
EMBEDDING_SPREAD = 0.2


def random_llama(configuration: dict[str, Any], seed: int) -> dict[str, np.ndarray]:
    """The tensors that a `config.json` of Llama's asks for, in float32.

    Matrices are normal with deviation 1 / sqrt(inputs), so that states keep
    their size through the layers; norms scatter about 1, so that leaving one
    out shows.
    """
    generator = np.random.default_rng(seed)
    hidden, inner = configuration["hidden_size"], configuration["intermediate_size"]
    head_dim = configuration["head_dim"]
    width = configuration["num_attention_heads"] * head_dim
    shared = configuration["num_key_value_heads"] * head_dim
    arrays: dict[str, np.ndarray] = {}

    def matrix(name: str, rows: int, columns: int) -> None:
        values = generator.standard_normal((rows, columns)) / np.sqrt(columns)
        arrays[f"{name}.weight"] = values.astype(np.float32)

    def norm(name: str) -> None:
        arrays[f"{name}.weight"] = (1 + 0.1 * generator.standard_normal(hidden)).astype(np.float32)

    embedding = EMBEDDING_SPREAD * generator.standard_normal((configuration["vocab_size"], hidden))
    arrays["model.embed_tokens.weight"] = embedding.astype(np.float32)
    for layer in range(configuration["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        norm(f"{prefix}.input_layernorm")
        matrix(f"{prefix}.self_attn.q_proj", width, hidden)
        matrix(f"{prefix}.self_attn.k_proj", shared, hidden)
        matrix(f"{prefix}.self_attn.v_proj", shared, hidden)
        matrix(f"{prefix}.self_attn.o_proj", hidden, width)
        norm(f"{prefix}.post_attention_layernorm")
        matrix(f"{prefix}.mlp.gate_proj", inner, hidden)
        matrix(f"{prefix}.mlp.up_proj", inner, hidden)
        matrix(f"{prefix}.mlp.down_proj", hidden, inner)
    norm("model.norm")
    if "num_labels" in configuration:
        matrix("score", configuration["num_labels"], hidden)
    elif not configuration.get("tie_word_embeddings", False):
        matrix("lm_head", configuration["vocab_size"], hidden)
    return arrays


def write_checkpoint(
    folder: Path,
    configuration: dict[str, Any],
    tensors: dict[str, np.ndarray],
    tokenizer: dict[str, Any],
    settings: dict[str, str],
    shards: int = 1,
) -> None:
    """Writes a checkpoint folder, whose weights may be in several files; `settings` is its `tokenizer_config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    if shards == 1:
        _write_weights(tensors, folder / "model.safetensors")
    else:
        _write_shards(folder, tensors, shards)
    for name, content in (
        ("config", configuration),
        ("tokenizer", tokenizer),
        ("tokenizer_config", settings),
    ):
        (folder / f"{name}.json").write_text(json.dumps(content) + "\n")


def _write_weights(tensors: dict[str, np.ndarray], path: Path) -> None:
    named = sorted(tensors.items())
    write_safetensors([Tensor(name, "F32", value.shape, partial(np.asarray, value)) for name, value in named], path)


def _write_shards(folder: Path, tensors: dict[str, np.ndarray], shards: int) -> None:
    places: dict[str, str] = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = {name: tensors[name] for name in sorted(tensors)[shard::shards]}
        _write_weights(part, folder / file)
        places |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index) + "\n")
