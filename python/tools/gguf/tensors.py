"""The tensors of a GGUF file under their Hugging Face names.

Single- and half-precision ones are kept as they are stored; quantised ones are
widened to float32. In files of the `llama` architecture the rows of query and
key are stored in the order of interleaved pairs; that is undone.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, ReaderTensor, dequantize

from tools.gguf.configuration import Unsupported
from tools.safetensors_file import Tensor

# What is kept, by the names of both formats.
KEPT = {GGMLQuantizationType.F32: "F32", GGMLQuantizationType.F16: "F16", GGMLQuantizationType.BF16: "BF16"}
WIDENED = tuple(GGMLQuantizationType[name] for name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"))
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


def named_tensors(tensors: Iterable[ReaderTensor], configuration: dict[str, Any]) -> list[Tensor]:
    """Every tensor, to be read when it is written; raises Unsupported where one has no place or no known type."""
    heads = {}
    if configuration["model_type"] == "llama":
        heads = {
            "self_attn.q_proj": configuration["num_attention_heads"],
            "self_attn.k_proj": configuration["num_key_value_heads"],
        }
    named = []
    for tensor in tensors:
        name = hugging_face_name(tensor.name)
        paired = next((count for part, count in heads.items() if f".{part}." in name), None)
        if tensor.tensor_type not in (*KEPT, *WIDENED):
            known = ", ".join(type_.name for type_ in (*KEPT, *WIDENED))
            raise Unsupported(f"{tensor.name} is stored as {tensor.tensor_type.name}: {known} are supported")
        named.append(
            Tensor(
                name=name,
                dtype=KEPT.get(tensor.tensor_type, "F32"),
                # The format lists the fastest axis first.
                shape=tuple(int(size) for size in reversed(tensor.shape)),
                read=partial(_values, tensor, paired),
            )
        )
    return named


def hugging_face_name(name: str) -> str:
    """A tensor's name in a checkpoint; raises Unsupported for one that has none."""
    stem, _, kind = name.rpartition(".")
    if stem in TOP_NAMES:
        return f"{TOP_NAMES[stem]}.{kind}"
    block, _, rest = stem.removeprefix("blk.").partition(".")
    if stem.startswith("blk.") and rest in LAYER_NAMES:
        return f"model.layers.{block}.{LAYER_NAMES[rest]}.{kind}"
    if stem == "rope_freqs":
        raise Unsupported(
            "the file holds rope_freqs, scaled rotations without their rule: fetch the original checkpoint folder and "
            "serve that"
        )
    raise Unsupported(f"tensor {name} has no place in a decoder of rotary positions")


def in_halves(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows in pairs (0,1), (2,3), … of each head, as halves: the firsts, then the seconds."""
    pairs = values.reshape(heads, -1, 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)


def _values(tensor: ReaderTensor, paired: int | None) -> np.ndarray:
    """The numbers, row by row, in the type in which they are written; bfloat16 as the bits of its numbers."""
    stored, type_ = np.ascontiguousarray(tensor.data), tensor.tensor_type
    if type_ == GGMLQuantizationType.BF16:
        values = stored.view(np.uint16)
    elif type_ in KEPT:
        values = stored
    else:
        values = dequantize(stored, type_).astype(np.float32)
    values = values.reshape([int(size) for size in reversed(tensor.shape)])
    return values if paired is None else in_halves(values, paired)
