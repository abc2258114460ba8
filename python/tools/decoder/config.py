"""What a checkpoint's `config.json` says of its architecture, checked.

A key that changes the arithmetic and isn't known here is an error: a graph that
leaves something out gives scores that look right and aren't.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# How the classes of a family begin.
FAMILIES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
KINDS = {
    "ForSequenceClassification": "sequence",
    "ForTokenClassification": "token",
    "ForCausalLM": "language_model",
}
DEFAULT_ROPE_THETA = 10_000.0
DEFAULT_NORM_EPSILON = 1e-6
# What Transformers takes where a Mistral configuration doesn't say.
MISTRAL_SLIDING_WINDOW = 4096
# What is read below.
READ = [
    "architectures",
    "attention_bias",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "id2label",
    "intermediate_size",
    "layer_types",
    "max_position_embeddings",
    "max_window_layers",
    "mlp_bias",
    "model_type",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "num_labels",
    "pad_token_id",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "sliding_window",
    "tie_word_embeddings",
    "use_sliding_window",
    "vocab_size",
]
# What changes no score of a trained model: training, generation, and what the library keeps for itself.
HARMLESS = [
    "attention_dropout",
    "attn_implementation",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "classifier_dropout",
    "cls_token_id",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "embd_pdrop",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "hidden_dropout",
    "initializer_range",
    "is_llama_config",
    "label2id",
    "length_penalty",
    "mask_token_id",
    "max_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "resid_pdrop",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
]
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
    "attention_multiplier": (None,),
    "chunk_size_feed_forward": (None, 0),
    "rope_interleaved": (None, False),
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
            raise Unsupported(f"{self.heads} attention heads are no multiple of {self.kv_heads} key-value heads")
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
    kind = _kind(raw, FAMILIES[family])
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


def _kind(raw: dict[str, Any], family: str) -> str:
    names = raw.get("architectures") or []
    for suffix, kind in KINDS.items():
        if family + suffix in names:
            return kind
    wanted = ", ".join(family + suffix for suffix in KINDS)
    raise Unsupported(f"architectures {names} of model_type {raw['model_type']!r}: one of {wanted} is wanted")


def _labels(raw: dict[str, Any]) -> int:
    if isinstance(raw.get("id2label"), dict):
        return len(raw["id2label"])
    # What Transformers takes where a configuration doesn't say.
    return _required({"num_labels": 2} | raw, "num_labels")


def _refuse_unknown_arithmetic(raw: dict[str, Any]) -> None:
    if raw.get("auto_map"):
        raise Unsupported(
            "config.json: auto_map names code that comes with the checkpoint and may compute anything; "
            "remove it if the architecture is the library's own"
        )
    known = {*READ, *HARMLESS, *NEUTRAL, "auto_map"}
    for key, value in raw.items():
        # What is switched off, or begins as the library's own notes do, computes nothing.
        if key not in known and not key.startswith("_") and value not in (None, False, {}, []):
            raise Unsupported(
                f"config.json: {key} = {value!r} is not known here; remove it if it changes nothing that "
                "the model computes"
            )
    for key, neutral in NEUTRAL.items():
        if raw.get(key) not in neutral:
            raise Unsupported(f"config.json: {key} = {raw[key]!r} is not supported")
    if raw.get("hidden_act", "silu") != "silu":
        raise Unsupported(f"config.json: hidden_act {raw['hidden_act']!r} is not silu")
    is_mistral = raw["model_type"] == "mistral"
    window = raw.get("sliding_window", MISTRAL_SLIDING_WINDOW if is_mistral else None)
    used = raw.get("use_sliding_window", is_mistral)
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
    rope = raw.get("rope_parameters") or {}
    older = raw.get("rope_scaling") or {}
    if rope and older and _rope_type(rope) != _rope_type(older):
        raise Unsupported("config.json: rope_parameters and rope_scaling name different types; keep one")
    rope = rope or older
    if any(isinstance(value, dict) for value in rope.values()):
        raise Unsupported("config.json: rope_parameters by layer type: only one rule for all layers is supported")
    theta = rope.get("rope_theta", raw.get("rope_theta", DEFAULT_ROPE_THETA))
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise Unsupported("config.json: partial_rotary_factor other than 1 is not supported")
    kind = _rope_type(rope)
    if kind == "default":
        return float(theta), None
    if kind != "llama3":
        raise Unsupported(f"config.json: rope scaling of type {kind!r}: only llama3 is supported")
    return float(theta), RopeScaling(
        factor=_positive(rope, "factor"),
        low_frequency_factor=_positive(rope, "low_freq_factor"),
        high_frequency_factor=_positive(rope, "high_freq_factor"),
        original_context=int(_positive(rope, "original_max_position_embeddings")),
    )


def _rope_type(rope: dict[str, Any]) -> str | None:
    """The name of the rule; None where there are numbers of one, and no name."""
    plain = set(rope) <= {"rope_theta", "partial_rotary_factor"}
    return rope.get("rope_type", rope.get("type", "default" if plain else None))


def _positive(rope: dict[str, Any], key: str) -> float:
    value = rope.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise Unsupported(f"config.json: rope scaling: {key} is {value!r}, a positive number is wanted")
    return value
