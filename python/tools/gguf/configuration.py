"""What a GGUF file says of its architecture, as `config.json`.

A key that changes the arithmetic and isn't known here is refused: weights that
are computed with otherwise give scores that look right and aren't.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

# What a file's architecture is in Transformers: its `model_type`, and how its classes begin.
FAMILIES = {"llama": ("llama", "Llama"), "qwen2": ("qwen2", "Qwen2"), "qwen3": ("qwen3", "Qwen3")}
DEFAULT_ROPE_THETA = 10_000.0
# What is read below, by the names that follow the architecture's.
READ = {
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_rms_epsilon",
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "rope.freq_base",
}
# What changes nothing that is computed, or repeats what the tensors say.
HARMLESS = {"expert_used_count", "tensor_data_layout", "vocab_size"}
# What changes nothing as long as it says this.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "attention.sliding_window": (0,),
    "expert_count": (0,),
    "rope.scale_linear": (1.0,),
    "rope.scaling.type": ("none",),
}


class Unsupported(ValueError):
    """A file that can't be converted faithfully; the message says why."""


def configuration(metadata: Mapping[str, Any], tensors: Set[str]) -> dict[str, Any]:
    """The `config.json` of a language model, from a file's metadata and the names of its tensors."""
    architecture = metadata.get("general.architecture")
    if architecture not in FAMILIES:
        raise Unsupported(f"architecture {architecture!r} is not one of {', '.join(FAMILIES)}")
    written = {
        name.removeprefix(f"{architecture}."): value
        for name, value in metadata.items()
        if name.startswith(f"{architecture}.")
    }

    def count(key: str, otherwise: int | None = None) -> int:
        value = written.get(key, otherwise)
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise Unsupported(f"{architecture}.{key} is {value!r}, a positive number is wanted")
        return value

    heads, hidden = count("attention.head_count"), count("embedding_length")
    head_dim = count("attention.key_length", hidden // heads)
    refuse_unknown(architecture, written, head_dim)
    family, class_name = FAMILIES[architecture]
    described = {
        "architectures": [f"{class_name}ForCausalLM"],
        "model_type": family,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "num_hidden_layers": count("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": count("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "intermediate_size": count("feed_forward_length"),
        "vocab_size": len(metadata.get("tokenizer.ggml.tokens", [])),
        "max_position_embeddings": count("context_length"),
        "rms_norm_eps": written.get("attention.layer_norm_rms_epsilon"),
        "rope_theta": written.get("rope.freq_base", DEFAULT_ROPE_THETA),
        "tie_word_embeddings": "output.weight" not in tensors,
    }
    if architecture == "llama":
        described["attention_bias"] = "blk.0.attn_q.bias" in tensors
    for kind in ("bos", "eos"):
        if (token := metadata.get(f"tokenizer.ggml.{kind}_token_id")) is not None:
            described[f"{kind}_token_id"] = token
    return described


def refuse_unknown(architecture: str, written: Mapping[str, Any], head_dim: int) -> None:
    """Raises Unsupported for what says that something else is computed than `config.json` can tell here."""
    # The whole of each head is rotated, and values are as wide as keys.
    neutral = NEUTRAL | {"rope.dimension_count": (head_dim,), "attention.value_length": (head_dim,)}
    for key, value in written.items():
        if key in neutral and value not in neutral[key]:
            raise Unsupported(
                f"{architecture}.{key} = {value!r}: the format doesn't tell all of that rule; fetch the original "
                "checkpoint folder and serve that"
            )
        # What scaled rotations are made of says nothing where none are.
        if key not in READ | HARMLESS | neutral.keys() and not key.startswith("rope.scaling."):
            raise Unsupported(f"{architecture}.{key} = {value!r} is not known here")
