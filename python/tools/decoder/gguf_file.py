"""Reads a GGUF file, llama.cpp's format, as a checkpoint under Hugging Face names.

Its quantised tensors are widened to float32. In files of the `llama` architecture the rows of
query and key are stored in the order of interleaved pairs; that is undone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, ReaderTensor, dequantize
from onnx import TensorProto

from tools.decoder.checkpoint import Checkpoint, SpecialTokens
from tools.decoder.config import FAMILIES, DecoderConfig, Unsupported, parse_config

ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
STORED = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K")
TOP_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# Token types of the format.
CONTROL, USER_DEFINED = 3, 4
GPT2_WORDS = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": True,
}
BYTES_ONLY = {**GPT2_WORDS, "use_regex": False}
LETTERS_AND_MARKS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _split(pattern: str) -> dict[str, Any]:
    split = {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    return {"type": "Sequence", "pretokenizers": [split, BYTES_ONLY]}


# How a text falls into words, by the name that the file gives the rule.
WORDS: dict[str, dict[str, Any]] = {
    "default": GPT2_WORDS,
    "gpt-2": GPT2_WORDS,
    "smollm": {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, GPT2_WORDS],
    },
    "llama-bpe": _split(LETTERS_AND_MARKS % r"\p{N}{1,3}"),
    "qwen2": _split(LETTERS_AND_MARKS % r"\p{N}"),
}


def read_gguf(path: Path) -> Checkpoint:
    """A GGUF file as the checkpoint of a language model; raises Unsupported."""
    fields = GGUFReader(path)
    metadata = {name: field.contents() for name, field in fields.fields.items()}
    config = _config(metadata, {tensor.name for tensor in fields.tensors})
    tokens = metadata.get("tokenizer.ggml.tokens", [])

    def named(kind: str) -> str | None:
        index = metadata.get(f"tokenizer.ggml.{kind}_token_id")
        return None if index is None else tokens[index]

    return Checkpoint(
        config=config,
        weights=GgufWeights(list(fields.tensors), config, metadata["general.architecture"]),
        tokenizer=_tokenizer(metadata),
        special_tokens=SpecialTokens(named("bos"), named("eos"), named("padding")),
        chat_template=metadata.get("tokenizer.chat_template"),
        stored=frozenset(tensor.tensor_type.name for tensor in fields.tensors),
    )


class GgufWeights:
    """The tensors of a GGUF file, widened and in Hugging Face's order as they are read."""

    def __init__(self, tensors: list[ReaderTensor], config: DecoderConfig, architecture: str) -> None:
        self._tensors = {_name(tensor.name): tensor for tensor in tensors}
        self._heads = {"q_proj": config.heads, "k_proj": config.kv_heads}
        self._permuted = architecture == "llama"
        for tensor in tensors:
            if tensor.tensor_type.name not in STORED:
                raise Unsupported(
                    f"{tensor.name} is stored as {tensor.tensor_type.name}: {', '.join(STORED)} are supported"
                )

    def names(self) -> set[str]:
        """As `Weights.names`."""
        return set(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """As `Weights.shape`."""
        # The format lists the fastest axis first.
        return tuple(int(size) for size in reversed(self._tensor(name).shape))

    def read(self, name: str) -> np.ndarray:
        """As `Weights.read`."""
        tensor = self._tensor(name)
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        values = values.reshape(self.shape(name))
        part = name.split(".")[-2]
        if self._permuted and part in self._heads:
            values = _in_halves(values, self._heads[part])
        return values

    def initializer(self, name: str) -> TensorProto:
        """As `Weights.initializer`."""
        raise Unsupported(f"{name} is in a GGUF file: convert the weights to float32 first")

    def _tensor(self, name: str) -> ReaderTensor:
        if name not in self._tensors:
            raise Unsupported(f"the file has no tensor {name}")
        return self._tensors[name]


def _in_halves(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows in pairs (0,1), (2,3), … of each head, as halves: the firsts, then the seconds."""
    pairs = values.reshape(heads, -1, 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)


def _name(name: str) -> str:
    """A tensor's Hugging Face name; raises Unsupported for one that has none."""
    stem, _, kind = name.rpartition(".")
    if stem in TOP_NAMES:
        return f"{TOP_NAMES[stem]}.{kind}"
    block, _, rest = stem.removeprefix("blk.").partition(".")
    if stem.startswith("blk.") and rest in LAYER_NAMES:
        return f"model.layers.{block}.{LAYER_NAMES[rest]}.{kind}"
    if stem == "rope_freqs":
        raise Unsupported(
            "the file holds rope_freqs, scaled rotations without their rule: export the original "
            "checkpoint folder instead"
        )
    raise Unsupported(f"tensor {name} has no place in a decoder of rotary positions")


def _config(metadata: dict[str, Any], tensors: set[str]) -> DecoderConfig:
    architecture = metadata["general.architecture"]
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise Unsupported(f"architecture {architecture!r} is not one of {known}")

    def value(key: str, otherwise: Any = None) -> Any:
        return metadata.get(f"{architecture}.{key}", otherwise)

    for key in ("expert_count", "attention.sliding_window"):
        if value(key):
            raise Unsupported(f"{architecture}.{key} = {value(key)} is not supported")
    if value("rope.scaling.type", "none") != "none":
        raise Unsupported("scaled rotations: export the original checkpoint folder instead")
    heads, hidden = value("attention.head_count"), value("embedding_length")
    config = {
        "model_type": ARCHITECTURES[architecture],
        "architectures": [FAMILIES[ARCHITECTURES[architecture]] + "ForCausalLM"],
        "hidden_size": hidden,
        "num_hidden_layers": value("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": value("attention.head_count_kv", heads),
        "head_dim": value("attention.key_length", hidden // heads),
        "intermediate_size": value("feed_forward_length"),
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "max_position_embeddings": value("context_length"),
        "rms_norm_eps": value("attention.layer_norm_rms_epsilon"),
        "rope_theta": value("rope.freq_base", 10_000.0),
        "tie_word_embeddings": "output.weight" not in tensors,
        "attention_bias": architecture == "llama" and "blk.0.attn_q.bias" in tensors,
        "pad_token_id": metadata.get("tokenizer.ggml.padding_token_id"),
    }
    if value("rope.dimension_count", config["head_dim"]) != config["head_dim"]:
        raise Unsupported("only a part of each head is rotated, which is not supported")
    return parse_config(config)


def _tokenizer(metadata: dict[str, Any]) -> dict[str, Any]:
    """The `tokenizer.json` of a byte-level BPE; raises Unsupported for another kind."""
    kind = metadata.get("tokenizer.ggml.model")
    # Without a rule the words might be split in any way.
    rule = metadata.get("tokenizer.ggml.pre")
    if kind != "gpt2" or rule not in WORDS:
        raise Unsupported(
            f"a tokenizer of the kind {kind!r} with the rule {rule!r} can't be rebuilt from the "
            "file: pass the model's own tokenizer.json with --tokenizer"
        )
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    added = [
        {
            "id": index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": token_type == CONTROL,
        }
        for index, (token, token_type) in enumerate(zip(tokens, types, strict=True))
        if token_type in (CONTROL, USER_DEFINED)
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"} if rule == "qwen2" else None,
        "pre_tokenizer": WORDS[rule],
        "post_processor": _around(metadata),
        "decoder": GPT2_WORDS,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": rule == "llama-bpe",
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in metadata["tokenizer.ggml.merges"]],
        },
    }


def _around(metadata: dict[str, Any]) -> dict[str, Any] | None:
    """What the tokenizer puts before and behind a text by itself: a BOS, an EOS, or nothing."""
    tokens = metadata["tokenizer.ggml.tokens"]
    special: dict[str, Any] = {}

    def added(kind: str) -> list[dict[str, Any]]:
        if not metadata.get(f"tokenizer.ggml.add_{kind}_token", False):
            return []
        index = metadata.get(f"tokenizer.ggml.{kind}_token_id")
        if index is None:
            raise Unsupported(f"the file says that a {kind.upper()} is added, and not which token it is")
        token = tokens[index]
        special[token] = {"id": token, "ids": [int(index)], "tokens": [token]}
        return [{"SpecialToken": {"id": token, "type_id": 0}}]

    before, behind = added("bos"), added("eos")
    if not special:
        return None
    texts = [{"Sequence": {"id": name, "type_id": kind}} for kind, name in enumerate("AB")]
    single, second = [*before, texts[0], *behind], [*before, texts[1], *behind]
    return {"type": "TemplateProcessing", "single": single, "pair": [*single, *second], "special_tokens": special}
