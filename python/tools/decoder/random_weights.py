"""Checkpoints of random weights, the same ones for the same seed on every machine."""

from __future__ import annotations

import numpy as np

from tools.decoder.config import DecoderConfig

# Small beside what a layer adds, or tied embeddings would answer with the last token again.
EMBEDDING_SPREAD = 0.2


def random_weights(config: DecoderConfig, seed: int, spread: float = 1.0) -> dict[str, np.ndarray]:
    """Tensors under their Hugging Face names, float32.

    Matrices are normal with deviation `spread` / sqrt(inputs), so that states
    keep their size through the layers; norms scatter about 1 and biases about 0,
    so that leaving one out shows.
    """
    c, generator = config, np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {}

    def matrix(name: str, rows: int, columns: int, bias: bool = False) -> None:
        values = generator.standard_normal((rows, columns)) * spread / np.sqrt(columns)
        arrays[f"{name}.weight"] = values.astype(np.float32)
        if bias:
            arrays[f"{name}.bias"] = (0.2 * generator.standard_normal(rows)).astype(np.float32)

    def norm(name: str, size: int) -> None:
        arrays[f"{name}.weight"] = (1 + 0.1 * generator.standard_normal(size)).astype(np.float32)

    embedding = EMBEDDING_SPREAD * generator.standard_normal((c.vocabulary, c.hidden))
    arrays["model.embed_tokens.weight"] = embedding.astype(np.float32)
    for layer in range(c.layers):
        prefix = f"model.layers.{layer}"
        attention, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"
        width, shared = c.heads * c.head_dim, c.kv_heads * c.head_dim
        norm(f"{prefix}.input_layernorm", c.hidden)
        matrix(f"{attention}.q_proj", width, c.hidden, c.qkv_bias)
        matrix(f"{attention}.k_proj", shared, c.hidden, c.qkv_bias)
        matrix(f"{attention}.v_proj", shared, c.hidden, c.qkv_bias)
        matrix(f"{attention}.o_proj", c.hidden, width, c.output_bias)
        if c.query_key_norm:
            norm(f"{attention}.q_norm", c.head_dim)
            norm(f"{attention}.k_norm", c.head_dim)
        norm(f"{prefix}.post_attention_layernorm", c.hidden)
        matrix(f"{mlp}.gate_proj", c.intermediate, c.hidden, c.mlp_bias)
        matrix(f"{mlp}.up_proj", c.intermediate, c.hidden, c.mlp_bias)
        matrix(f"{mlp}.down_proj", c.hidden, c.intermediate, c.mlp_bias)
    norm("model.norm", c.hidden)
    if c.kind == "language_model":
        if not c.tied_embeddings:
            matrix("lm_head", c.vocabulary, c.hidden)
    else:
        matrix("score", c.labels, c.hidden, bias=c.kind == "token")
    return arrays
