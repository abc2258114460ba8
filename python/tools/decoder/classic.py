"""Writes a decoder as ordinary exporters do: `input_ids` and `attention_mask` to `logits`.

A batch of padded texts, each computed whole. No prefix can be shared; it is there
to be compared with.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from tools.decoder.config import DecoderConfig
from tools.decoder.graph import Decoder, Nodes
from tools.decoder.session import MASKED
from tools.decoder.weights import Weights


def build_classic(config: DecoderConfig, weights: Weights) -> onnx.ModelProto:
    """A classifier's graph: int64 `[batch, sequence]` twice to `logits` `[batch, labels]`.

    The score is read at a row's last token that the mask lets through.
    Raises Unsupported when the weights aren't those that the configuration says.
    """
    nodes = Nodes(weights)
    decoder = Decoder(config, nodes)
    rows = _Rows(config, nodes)
    state = decoder.embed("input_ids")
    rotations = decoder.rotations(rows.positions)
    for layer in range(config.layers):
        normal = decoder.norm(f"model.layers.{layer}.input_layernorm", state)
        prefix = f"model.layers.{layer}.self_attn"
        width = config.heads * config.head_dim
        query = nodes.linear(f"{prefix}.q_proj", normal, width, config.hidden, config.qkv_bias)
        query = nodes.add("Reshape", query, nodes.shape(0, config.heads, config.head_dim))
        if config.query_key_norm:
            norm = f"{prefix}.q_norm"
            query = nodes.rms_norm(norm, query, config.head_dim, config.norm_epsilon)
        query = decoder.rotate(query, rotations["query"])
        key, value = decoder.keys_and_values(layer, normal, rotations["key"])
        drawn = rows.attention(query, key, value)
        drawn = nodes.linear(f"{prefix}.o_proj", drawn, config.hidden, width, config.output_bias)
        state = nodes.add("Add", state, drawn)
        inner = decoder.norm(f"model.layers.{layer}.post_attention_layernorm", state)
        state = nodes.add("Add", state, decoder.mlp(layer, inner))
    state = decoder.norm("model.norm", rows.last(state))
    decoder.read_out("scores", state)
    nodes.add("Identity", "scores", output="logits")
    return _close(config, nodes)


class _Rows:
    """What needs to know which tokens stand in the same row."""

    def __init__(self, config: DecoderConfig, nodes: Nodes) -> None:
        n = nodes
        self._config, self._nodes = config, nodes
        self._batch = n.add("Shape", "input_ids", start=0, end=1)
        self._length = n.add("Shape", "input_ids", start=1, end=2)
        scalar = n.add("Squeeze", self._length)
        zero, one = n.constant("zero", np.int64(0)), n.constant("one", np.int64(1))
        self._places = n.add("Range", zero, scalar, one)
        shape = n.add("Shape", "input_ids")
        self.positions = n.add("Expand", self._places, shape)
        self._bias = self._mask()

    def _mask(self) -> str:
        """0 where a token may look and `MASKED` elsewhere, `[batch, 1, 1, sequence, sequence]`."""
        n = self._nodes
        queries = n.add("Reshape", self._places, n.shape(-1, 1))
        causal = n.add("LessOrEqual", self._places, queries)
        real = n.add("Cast", "attention_mask", to=TensorProto.BOOL)
        axes = n.constant("axes_1_2_3", np.array([1, 2, 3], np.int64))
        seen = n.add("And", causal, n.add("Unsqueeze", real, axes))
        return n.add("Where", seen, n.constant("seen", np.float32(0)), n.constant("masked", MASKED))

    def attention(self, query: str, key: str, value: str) -> str:
        """`query` [tokens, heads, head_dim] against its row of keys and values [KV, tokens, head_dim]."""
        n, c = self._nodes, self._config
        by_row = n.add(
            "Concat",
            self._batch,
            self._length,
            n.constant("query_heads", np.array([c.kv_heads, c.group, c.head_dim], np.int64)),
            axis=0,
        )
        query = n.add("Transpose", n.add("Reshape", query, by_row), perm=[0, 2, 3, 1, 4])
        shared = n.add(
            "Concat",
            n.constant("kv_head_count", np.array([c.kv_heads], np.int64)),
            self._batch,
            self._length,
            n.constant("head_size", np.array([c.head_dim], np.int64)),
            axis=0,
        )
        axis = n.constant("axis_2", np.array([2], np.int64))
        keys = n.add("Transpose", n.add("Reshape", key, shared), perm=[1, 0, 3, 2])
        values = n.add("Transpose", n.add("Reshape", value, shared), perm=[1, 0, 2, 3])
        likeness = n.add("MatMul", query, n.add("Unsqueeze", keys, axis))
        share = n.add("Softmax", n.add("Add", likeness, self._bias), axis=-1)
        drawn = n.add("MatMul", share, n.add("Unsqueeze", values, axis))
        drawn = n.add("Transpose", drawn, perm=[0, 3, 1, 2, 4])
        return n.add("Reshape", drawn, n.shape(-1, c.heads * c.head_dim))

    def last(self, state: str) -> str:
        """The state at each row's last token, `[batch, hidden]`."""
        n = self._nodes
        hidden = n.constant("hidden_size", np.array([self._config.hidden], np.int64))
        by_row = n.add("Concat", self._batch, self._length, hidden, axis=0)
        state = n.add("Reshape", state, by_row)
        places = n.add("Mul", "attention_mask", self._places)
        last = n.add("ArgMax", places, axis=1, keepdims=1)
        return n.add("GatherND", state, last, batch_dims=1)


def _close(config: DecoderConfig, nodes: Nodes) -> onnx.ModelProto:
    tokens = ["batch", "sequence"]
    info = helper.make_tensor_value_info
    return nodes.model(
        f"{config.family}_classic",
        [info(name, TensorProto.INT64, tokens) for name in ("input_ids", "attention_mask")],
        [info("logits", TensorProto.FLOAT, ["batch", config.labels])],
    )
