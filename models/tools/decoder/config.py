"""What a checkpoint's `config.json` says of its architecture, checked.

A key that changes the arithmetic and isn't known here is an error: a graph that
leaves something out gives scores that look right and aren't.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
KINDS = {
    "ForSequenceClassification": "sequence",
    "ForTokenClassification": "token",
    "ForCausalLM": "language_model",
}
DEFAULT_ROPE_THETA = 10_000.0
DEFAULT_NORM_EPSILON = 1e-6
# Keys that would change the arithmetic unless they hold one of these values.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "quantization_config": (None,),
    "compression_config": (None,),
    "num_local_experts": (None,),
    "partial_rotary_factor": (None, 1, 1.0),
    "residual_multiplier": (None, 1, 1.0),
    "embedding_multiplier": (None, 1, 1.0),
    "logits_scaling": (None, 1, 1.0),
    "no_rope_layers": (None, []),
    "is_encoder_decoder": (None, False),
    "is_causal": (None, True),
}


class Unsupported(ValueError):
    """A checkpoint that can't be written faithfully; the message says why."""


@dataclass(frozen=True)
class RopeScaling:
    """The `llama3` rule, which stretches the slow rotations of a longer context."""

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_context: int


@dataclass(frozen=True)
class DecoderConfig:
    """The hyper-parameters of a decoder of rotary positions, RMS norms and a gated MLP.

    `kind` is `sequence`, `token` or `language_model`; `labels` is the number of
    a classifier's outputs and 0 for a language model. A sequence classifier reads
    its score at the last token that isn't `pad_token`.
    """

    family: str
    kind: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    context: int
    norm_epsilon: float
    rope_theta: float
    rope_scaling: RopeScaling | None = None
    labels: int = 0
    tied_embeddings: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    query_key_norm: bool = False
    pad_token: int | None = None

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise Unsupported(
                f"{self.heads} attention heads are no multiple of {self.kv_heads} key-value heads"
            )
        if self.head_dim % 2:
            raise Unsupported(f"heads of {self.head_dim} dimensions can't be rotated in pairs")

    @property
    def group(self) -> int:
        """How many attention heads share a key-value head."""
        return self.heads // self.kv_heads


def read_config(folder: Path) -> DecoderConfig:
    """The configuration of a checkpoint folder; raises Unsupported."""
    path = folder / "config.json"
    if not path.is_file():
        raise Unsupported(f"{folder} has no config.json: is it a checkpoint folder?")
    return parse_config(json.loads(path.read_text()))


def parse_config(raw: dict[str, Any]) -> DecoderConfig:
    """The configuration that `config.json` holds; raises Unsupported."""
    family = raw.get("model_type")
    if family not in FAMILIES:
        raise Unsupported(f"model_type {family!r} is not one of {', '.join(FAMILIES)}")
    _refuse_unknown_arithmetic(raw)
    kind = _kind(raw)
    heads = _required(raw, "num_attention_heads")
    hidden = _required(raw, "hidden_size")
    theta, scaling = _rope(raw)
    bias = bool(raw.get("attention_bias", False))
    return DecoderConfig(
        family=family,
        kind=kind,
        hidden=hidden,
        layers=_required(raw, "num_hidden_layers"),
        heads=heads,
        kv_heads=raw.get("num_key_value_heads") or heads,
        head_dim=raw.get("head_dim") or hidden // heads,
        intermediate=_required(raw, "intermediate_size"),
        vocabulary=_required(raw, "vocab_size"),
        context=_required(raw, "max_position_embeddings"),
        norm_epsilon=raw.get("rms_norm_eps", DEFAULT_NORM_EPSILON),
        rope_theta=theta,
        rope_scaling=scaling,
        labels=0 if kind == "language_model" else _labels(raw),
        tied_embeddings=bool(raw.get("tie_word_embeddings", False)),
        qkv_bias=bias or family == "qwen2",
        output_bias=bias and family != "qwen2",
        mlp_bias=bool(raw.get("mlp_bias", False)),
        query_key_norm=family == "qwen3",
        pad_token=_pad_token(raw),
    )


def _required(raw: dict[str, Any], key: str) -> int:
    value = raw.get(key)
    if not isinstance(value, int) or value <= 0:
        raise Unsupported(f"config.json: {key} is {value!r}, a positive number is wanted")
    return value


def _pad_token(raw: dict[str, Any]) -> int | None:
    """The padding token's id; some checkpoints write -1 where they have none."""
    token = raw.get("pad_token_id")
    return token if isinstance(token, int) and token >= 0 else None


def _kind(raw: dict[str, Any]) -> str:
    names = raw.get("architectures") or []
    for name in names:
        for suffix, kind in KINDS.items():
            if name.endswith(suffix):
                return kind
    raise Unsupported(f"architectures {names} name no {' or '.join('*' + key for key in KINDS)}")


def _labels(raw: dict[str, Any]) -> int:
    if isinstance(raw.get("id2label"), dict):
        return len(raw["id2label"])
    # What Transformers takes where a configuration doesn't say.
    return int(raw.get("num_labels", 2))


def _refuse_unknown_arithmetic(raw: dict[str, Any]) -> None:
    for key, neutral in NEUTRAL.items():
        if raw.get(key) not in neutral:
            raise Unsupported(f"config.json: {key} = {raw[key]!r} is not supported")
    if raw.get("hidden_act", "silu") != "silu":
        raise Unsupported(f"config.json: hidden_act {raw['hidden_act']!r} is not silu")
    window = raw.get("sliding_window")
    used = raw.get("use_sliding_window", raw["model_type"] == "mistral")
    if window is not None and used and window < raw.get("max_position_embeddings", 0):
        raise Unsupported(
            f"config.json: sliding_window = {window}: a model that forgets what lies further back "
            "can't share a prefix; set it to null if the checkpoint was trained without one"
        )
    layer_types = set(raw.get("layer_types") or ["full_attention"])
    if layer_types != {"full_attention"}:
        raise Unsupported(f"config.json: layer_types {sorted(layer_types)}: only full_attention is")


def _rope(raw: dict[str, Any]) -> tuple[float, RopeScaling | None]:
    """Theta and scaling, from `rope_parameters` or the older `rope_theta` and `rope_scaling`."""
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    theta = rope.get("rope_theta", raw.get("rope_theta", DEFAULT_ROPE_THETA))
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise Unsupported("config.json: partial_rotary_factor other than 1 is not supported")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return float(theta), None
    if kind != "llama3":
        raise Unsupported(f"config.json: rope scaling of type {kind!r}: only llama3 is supported")
    return float(theta), RopeScaling(
        factor=rope["factor"],
        low_frequency_factor=rope["low_freq_factor"],
        high_frequency_factor=rope["high_freq_factor"],
        original_context=rope["original_max_position_embeddings"],
    )
