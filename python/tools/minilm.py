"""Builds the ONNX graph of a MiniLM (BERT) encoder from its safetensors weights.

The packages that carry the all-MiniLM-L6-v2 trunk hold weights only. Writing
the graph node by node needs no deep-learning framework, and it lets a reward
model read any layer and pool as it likes within a single forward pass.

Shapes: `batch` and `sequence` are free; every tensor is float32 apart from the
int64 inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from tools.onnx_graph import GraphBuilder

INPUTS = ("input_ids", "attention_mask", "token_type_ids")

# Added to the attention logits of padding. exp() of it underflows to exactly
# zero, so padding contributes nothing rather than almost nothing.
MASKED = np.float32(-1e30)


@dataclass(frozen=True)
class EncoderShape:
    """The hyper-parameters that weights alone don't tell."""

    layers: int = 6
    heads: int = 12
    hidden: int = 384
    layer_norm_epsilon: float = 1e-12


class EncoderGraph(GraphBuilder):
    """The nodes of an encoder over the three BERT inputs."""

    def split(self, value: str, parts: int, axis: int) -> list[str]:
        """Splits `value` into equal `parts` along `axis`."""
        names = [f"{self.next_name('Split')}_{index}" for index in range(parts)]
        self.nodes.append(helper.make_node("Split", [value], names, name=names[0], axis=axis, num_outputs=parts))
        return names

    def up_to_length(self, table: str) -> str:
        """The rows of `table` for the positions of this batch: `[sequence, …]`."""
        return self.add(
            "Slice",
            table,
            self.constant("zero", np.array([0], np.int64)),
            self.add("Shape", "input_ids", start=1, end=2),
            self.constant("axis_0", np.array([0], np.int64)),
        )

    def close(self, name: str, output: str, width: int) -> onnx.ModelProto:
        """The graph with one output `[batch, width]`, checked."""
        info = helper.make_tensor_value_info
        inputs = [info(name, TensorProto.INT64, ["batch", "sequence"]) for name in INPUTS]
        model = self.model(name, inputs, [info(output, TensorProto.FLOAT, ["batch", width])])
        onnx.checker.check_model(model, full_check=True)
        return model


class MiniLM:
    """The encoder as graph nodes, from weights under their Hugging Face names.

    Both sentences of a pair get the first segment's embedding: sentence-embedding
    training showed this trunk one segment only, and its second was never tuned.
    """

    def __init__(self, weights: dict[str, np.ndarray], builder: EncoderGraph, shape: EncoderShape) -> None:
        self.weights = {k: v.astype(np.float32) for k, v in weights.items() if v.dtype.kind == "f"}
        self.builder = builder
        self.shape = shape

    def hidden_states(self) -> list[str]:
        """Emits the encoder; returns the embedding's and each layer's output.

        Each is `[batch, sequence, hidden]`. States at padding are finite and
        meaningless: pool them with the attention mask.
        """
        states = [self._embeddings()]
        bias = self._attention_bias()
        for layer in range(self.shape.layers):
            states.append(self._layer(layer, states[-1], bias))
        return states

    def _embeddings(self) -> str:
        b = self.builder
        table = "embeddings.{}_embeddings.weight"
        words = b.add("Gather", self._weight(table.format("word")), "input_ids")
        segment = self.weights[table.format("token_type")][0]
        places = self.weights[table.format("position")] + segment
        positions = b.up_to_length(b.constant("embeddings.position_and_segment", places))
        return self._layer_norm("embeddings.LayerNorm", b.add("Add", words, positions))

    def _attention_bias(self) -> str:
        """0 where a key is real and `MASKED` where it is padding: [batch,1,1,sequence]."""
        b = self.builder
        mask = b.add("Cast", "attention_mask", to=TensorProto.FLOAT)
        padding = b.add("Sub", b.constant("one", np.float32(1.0)), mask)
        bias = b.add("Mul", padding, b.constant("masked", MASKED))
        return b.add("Unsqueeze", bias, b.constant("axes_1_2", np.array([1, 2], np.int64)))

    def _layer(self, index: int, state: str, bias: str) -> str:
        b = self.builder
        prefix = f"encoder.layer.{index}"
        attended = self._attention(f"{prefix}.attention", state, bias)
        state = self._layer_norm(f"{prefix}.attention.output.LayerNorm", b.add("Add", attended, state))
        inner = b.add("Gelu", self._linear(f"{prefix}.intermediate.dense", state))
        outer = self._linear(f"{prefix}.output.dense", inner)
        return self._layer_norm(f"{prefix}.output.LayerNorm", b.add("Add", outer, state))

    def _attention(self, prefix: str, state: str, bias: str) -> str:
        b, heads = self.builder, self.shape.heads
        size = self.shape.hidden // heads
        # One product for queries, keys and values; the softmax temperature
        # goes into the queries' weights.
        parts = [f"{prefix}.self.{name}" for name in ("query", "key", "value")]
        scale = (np.float32(1.0 / np.sqrt(size)), np.float32(1.0), np.float32(1.0))
        weight = np.concatenate([self.weights[f"{p}.weight"].T * s for p, s in zip(parts, scale, strict=True)], axis=1)
        offset = np.concatenate([self.weights[f"{p}.bias"] * s for p, s in zip(parts, scale, strict=True)])
        product = b.add("MatMul", state, b.constant(f"{prefix}.qkv.weight", weight))
        product = b.add("Add", product, b.constant(f"{prefix}.qkv.bias", offset))
        by_head = b.constant("by_head", np.array([0, 0, heads, size], np.int64))
        query, key, value = (b.add("Reshape", part, by_head) for part in b.split(product, 3, axis=2))
        query = b.add("Transpose", query, perm=[0, 2, 1, 3])
        key = b.add("Transpose", key, perm=[0, 2, 3, 1])
        value = b.add("Transpose", value, perm=[0, 2, 1, 3])
        logits = b.add("Add", b.add("MatMul", query, key), bias)
        mixed = b.add("MatMul", b.add("Softmax", logits, axis=-1), value)
        mixed = b.add("Transpose", mixed, perm=[0, 2, 1, 3])
        joined = b.constant("joined", np.array([0, 0, self.shape.hidden], np.int64))
        return self._linear(f"{prefix}.output.dense", b.add("Reshape", mixed, joined))

    def _linear(self, name: str, value: str) -> str:
        b = self.builder
        weight = b.constant(f"{name}.weight", self.weights[f"{name}.weight"].T)
        return b.add("Add", b.add("MatMul", value, weight), self._weight(f"{name}.bias"))

    def _layer_norm(self, name: str, value: str) -> str:
        return self.builder.add(
            "LayerNormalization",
            value,
            self._weight(f"{name}.weight"),
            self._weight(f"{name}.bias"),
            axis=-1,
            epsilon=self.shape.layer_norm_epsilon,
        )

    def _weight(self, name: str) -> str:
        return self.builder.constant(name, self.weights[name])
