"""Writes a decoder as a graph that can share a prefix: contract `rm-prefix/1`.

One row of S new tokens, which may follow P earlier ones whose keys and values
are handed in. T is the type of the weights, float32 here.

| input | type | shape | |
|---|---|---|---|
| `input_ids` | int64 | `[1,S]` | |
| `position_ids` | int64 | `[1,S]` | each token's place in its own text |
| `attn_bias` | T | `[1,1,S,P+S]` | 0 where a token may look, a finite large negative elsewhere |
| `score_positions` | int64 | `[M]` | the indices into S at which outputs are read; M may be 0 |
| `past_key_values.{l}.key`, `.value` | T | `[1,KV,P,HD]` | P may be 0 |

| output | shape | |
|---|---|---|
| `scores` | `[M,K]` | K reward heads |
| `logits` | `[M,V]` | the language-model head |
| `hidden` | `[M,H]` | the last state, after the final norm |
| `present.{l}.key`, `.value` | `[1,KV,S,HD]` | of the new tokens alone, keys rotated |

The mask is an input, and so are the positions. That one graph therefore reads a
prompt, continues it, and scores several candidates or several prompts in one
row. The metadata properties say which contract it is and the shapes that a host
must know: `karat.contract`, `karat.layers`, `karat.kv_heads`, `karat.head_dim`,
`karat.context`, and `karat.present` (`new`: the host appends).

In the last layer only what is read is computed beyond the keys and values. Only
operators of the standard are used, for every execution provider knows them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from tools.decoder.config import DecoderConfig, Unsupported
from tools.decoder.rope import inverse_frequencies
from tools.decoder.weights import Weights
from tools.onnx_graph import GraphBuilder

CONTRACT = "rm-prefix/1"
OUTPUTS = ("scores", "logits", "hidden")
SCORE_HEADS = ("score", "classifier")


class Nodes(GraphBuilder):
    """The nodes of a decoder, with the tensors of its checkpoint."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.weights = weights

    def halves(self, value: str) -> tuple[str, str]:
        """Both halves of `value` along its last axis."""
        name = self.next_name("Split")
        halves = (f"{name}_first", f"{name}_second")
        self.nodes.append(helper.make_node("Split", [value], list(halves), name=name, axis=-1, num_outputs=2))
        return halves

    def shape(self, *sizes: int) -> str:
        """A constant for Reshape: 0 keeps an axis, -1 takes the rest."""
        name = "shape_" + "_".join("rest" if size < 0 else str(size) for size in sizes)
        return self.constant(name, np.array(sizes, np.int64))

    def weight(self, name: str, *shape: int) -> str:
        """The tensor `name` of the checkpoint; raises Unsupported unless it has this shape."""
        if name not in self.initializers:
            found = self.weights.shape(name)
            if found != shape:
                raise Unsupported(f"{name} is {list(found)}, by config.json it should be {shape}")
            self.initializers[name] = self.weights.initializer(name)
        return name

    def linear(self, name: str, value: str, rows: int, columns: int, bias: bool) -> str:
        """`value` [n, columns] times the transposed weight [rows, columns], plus a bias."""
        inputs = [value, self.weight(f"{name}.weight", rows, columns)]
        if bias:
            inputs.append(self.weight(f"{name}.bias", rows))
        return self.add("Gemm", *inputs, transB=1)

    def rms_norm(self, name: str, value: str, size: int, epsilon: float) -> str:
        """Root-mean-square norm over the last axis (Zhang and Sennrich, 2019)."""
        square = self.add("Pow", value, self.constant("two", np.float32(2)))
        mean = self.add("ReduceMean", square, self.constant("last_axis", np.array([-1], np.int64)))
        offset = self.add("Add", mean, self.constant("norm_epsilon", np.float32(epsilon)))
        normal = self.add("Div", value, self.add("Sqrt", offset))
        return self.add("Mul", normal, self.weight(f"{name}.weight", size))


class Decoder:
    """The layers of a decoder as nodes, from weights under their Hugging Face names."""

    def __init__(self, config: DecoderConfig, nodes: Nodes) -> None:
        self.config = config
        self.nodes = nodes

    def embed(self, input_ids: str) -> str:
        """The embedding of each token, `[tokens, hidden]`."""
        n, c = self.nodes, self.config
        flat = n.add("Reshape", input_ids, n.shape(-1))
        table = n.weight("model.embed_tokens.weight", c.vocabulary, c.hidden)
        return n.add("Gather", table, flat)

    def rotations(self, position_ids: str) -> dict[str, tuple[str, str]]:
        """Cosines and signed sines for queries and for keys, `[tokens, 1, head_dim]` each.

        Those of the queries carry the softmax temperature 1/sqrt(head_dim).
        """
        n, c = self.nodes, self.config
        positions = n.add("Cast", position_ids, to=TensorProto.FLOAT)
        positions = n.add("Reshape", positions, n.shape(-1, 1, 1))
        frequencies = n.constant("inverse_frequencies", inverse_frequencies(c))
        angles = n.add("Mul", positions, frequencies)
        cosine, sine = n.add("Cos", angles), n.add("Sin", angles)
        cosines = n.add("Concat", cosine, cosine, axis=-1)
        sines = n.add("Concat", n.add("Neg", sine), sine, axis=-1)
        scale = n.constant("query_scale", np.float32(c.head_dim**-0.5))
        return {
            "query": (n.add("Mul", cosines, scale), n.add("Mul", sines, scale)),
            "key": (cosines, sines),
        }

    def rotate(self, value: str, rotation: tuple[str, str]) -> str:
        """`value` [tokens, heads, head_dim] turned; dimensions i and i + head_dim/2 are a pair."""
        n = self.nodes
        first, second = n.halves(value)
        swapped = n.add("Concat", second, first, axis=-1)
        return n.add("Add", n.add("Mul", value, rotation[0]), n.add("Mul", swapped, rotation[1]))

    def keys_and_values(self, layer: int, state: str, rotation: tuple[str, str]) -> tuple[str, str]:
        """The new tokens' keys (rotated) and values, each `[KV, tokens, head_dim]`."""
        n, c, prefix = self.nodes, self.config, f"model.layers.{layer}.self_attn"
        by_head = n.shape(0, c.kv_heads, c.head_dim)
        width = c.kv_heads * c.head_dim
        key = n.linear(f"{prefix}.k_proj", state, width, c.hidden, c.qkv_bias)
        key = n.add("Reshape", key, by_head)
        if c.query_key_norm:
            key = n.rms_norm(f"{prefix}.k_norm", key, c.head_dim, c.norm_epsilon)
        key = self.rotate(key, rotation)
        value = n.linear(f"{prefix}.v_proj", state, width, c.hidden, c.qkv_bias)
        value = n.add("Reshape", value, by_head)
        return n.add("Transpose", key, perm=[1, 0, 2]), n.add("Transpose", value, perm=[1, 0, 2])

    def attention(self, layer: int, state: str, seen: Seen) -> str:
        """What `state` [m, hidden] draws from what it may see, `[m, hidden]`.

        Each head is a product of its own: a library that shares products out over threads then has enough of them,
        also where there are few key-value heads.
        """
        n, c, prefix = self.nodes, self.config, f"model.layers.{layer}.self_attn"
        width = c.heads * c.head_dim
        query = n.linear(f"{prefix}.q_proj", state, width, c.hidden, c.qkv_bias)
        query = n.add("Reshape", query, n.shape(0, c.heads, c.head_dim))
        if c.query_key_norm:
            query = n.rms_norm(f"{prefix}.q_norm", query, c.head_dim, c.norm_epsilon)
        query = self.rotate(query, seen.rotation)
        query = n.add("Reshape", query, n.shape(0, c.kv_heads, c.group, c.head_dim))
        query = n.add("Transpose", query, perm=[1, 2, 0, 3])
        likeness = n.add("MatMul", query, n.add("Transpose", seen.keys, perm=[0, 1, 3, 2]))
        share = n.add("Softmax", n.add("Add", likeness, seen.bias), axis=-1)
        drawn = n.add("MatMul", share, seen.values)
        drawn = n.add("Transpose", drawn, perm=[2, 0, 1, 3])
        drawn = n.add("Reshape", drawn, n.shape(-1, width))
        return n.linear(f"{prefix}.o_proj", drawn, c.hidden, width, c.output_bias)

    def mlp(self, layer: int, state: str) -> str:
        """The gated MLP (SwiGLU; Shazeer, 2020), `[m, hidden]`."""
        n, c, prefix = self.nodes, self.config, f"model.layers.{layer}.mlp"
        gate = n.linear(f"{prefix}.gate_proj", state, c.intermediate, c.hidden, c.mlp_bias)
        gate = n.add("Mul", gate, n.add("Sigmoid", gate))
        up = n.linear(f"{prefix}.up_proj", state, c.intermediate, c.hidden, c.mlp_bias)
        product = n.add("Mul", gate, up)
        return n.linear(f"{prefix}.down_proj", product, c.hidden, c.intermediate, c.mlp_bias)

    def norm(self, name: str, state: str) -> str:
        """One of the norms of the whole state."""
        return self.nodes.rms_norm(name, state, self.config.hidden, self.config.norm_epsilon)

    def finish_layer(self, layer: int, state: str, normal: str, seen: Seen) -> str:
        """The state after a layer, from the state before it and that state's norm."""
        n = self.nodes
        state = n.add("Add", state, self.attention(layer, normal, seen))
        inner = self.norm(f"model.layers.{layer}.post_attention_layernorm", state)
        return n.add("Add", state, self.mlp(layer, inner))

    def read_out(self, output: str, state: str) -> None:
        """Adds the output `scores`, `logits` or `hidden` of the final state `[m, hidden]`."""
        n, c = self.nodes, self.config
        if output == "hidden":
            n.add("Identity", state, output="hidden")
        elif output == "logits":
            head = "model.embed_tokens" if c.tied_embeddings else "lm_head"
            weight = n.weight(f"{head}.weight", c.vocabulary, c.hidden)
            n.add("Gemm", state, weight, transB=1, output="logits")
        else:
            head = score_head(n.weights)
            inputs = [state, n.weight(f"{head}.weight", c.labels, c.hidden)]
            if f"{head}.bias" in n.weights.names():
                inputs.append(n.weight(f"{head}.bias", c.labels))
            n.add("Gemm", *inputs, transB=1, output="scores")


@dataclass(frozen=True)
class Seen:
    """What a layer's queries look at, and how.

    `rotation` is that of the queries; `keys` and `values` are `[KV, 1, all, head_dim]`;
    `bias` broadcasts to `[KV, group, m, all]`.
    """

    rotation: tuple[str, str]
    keys: str
    values: str
    bias: str


def score_head(weights: Weights) -> str:
    """What a classifier's checkpoint calls its head; raises Unsupported where it has none."""
    for name in SCORE_HEADS:
        if f"{name}.weight" in weights.names():
            return name
    raise Unsupported(f"the checkpoint has no {' or '.join(f'{n}.weight' for n in SCORE_HEADS)}")


def build(config: DecoderConfig, weights: Weights, outputs: tuple[str, ...]) -> onnx.ModelProto:
    """The graph of contract `rm-prefix/1` with the given ones of `OUTPUTS`.

    Raises Unsupported when the weights aren't those that the configuration says.
    """
    nodes = Nodes(weights)
    decoder = Decoder(config, nodes)
    state = decoder.embed("input_ids")
    rotations = decoder.rotations("position_ids")
    bias = "attn_bias"
    query_rotation = rotations["query"]
    presents: list[str] = []
    for layer in range(config.layers):
        normal = decoder.norm(f"model.layers.{layer}.input_layernorm", state)
        new = decoder.keys_and_values(layer, normal, rotations["key"])
        keys, values = (
            _after_the_past(nodes, f"{layer}.{name}", value, presents)
            for name, value in zip(("key", "value"), new, strict=True)
        )
        if layer == config.layers - 1:
            read = "score_positions"
            state, normal = (nodes.add("Gather", value, read) for value in (state, normal))
            cosines, sines = query_rotation
            query_rotation = nodes.add("Gather", cosines, read), nodes.add("Gather", sines, read)
            bias = nodes.add("Gather", bias, read, axis=2)
        seen = Seen(query_rotation, keys, values, bias)
        state = decoder.finish_layer(layer, state, normal, seen)
    state = decoder.norm("model.norm", state)
    for output in outputs:
        decoder.read_out(output, state)
    return _close(config, nodes, outputs, presents)


def _after_the_past(nodes: Nodes, name: str, new: str, presents: list[str]) -> str:
    """Gives the new tokens' keys or values out, and returns all of them, `[KV, 1, all, head_dim]`."""
    batch, group = (nodes.constant(f"axis_{axis}", np.array([axis], np.int64)) for axis in (0, 1))
    presents.append(nodes.add("Unsqueeze", new, batch, output=f"present.{name}"))
    past = nodes.add("Squeeze", f"past_key_values.{name}", batch)
    return nodes.add("Unsqueeze", nodes.add("Concat", past, new, axis=1), group)


def _close(config: DecoderConfig, nodes: Nodes, outputs: tuple[str, ...], presents: list[str]) -> onnx.ModelProto:
    """Closes the graph over the contract's inputs and outputs."""
    new, past, every, read = "new_tokens", "past_tokens", "all_tokens", "read_tokens"
    cache: list[int | str] = [1, config.kv_heads, past, config.head_dim]
    widths = {"scores": config.labels, "logits": config.vocabulary, "hidden": config.hidden}
    integer, real, info = TensorProto.INT64, TensorProto.FLOAT, helper.make_tensor_value_info
    properties: dict[str, object] = {
        "karat.contract": CONTRACT,
        "karat.layers": config.layers,
        "karat.kv_heads": config.kv_heads,
        "karat.head_dim": config.head_dim,
        "karat.context": config.context,
        "karat.present": "new",
    }
    if config.kind == "sequence" and config.pad_token is not None:
        # A sequence classifier's score stands at the last token that isn't this one.
        properties["karat.pad_id"] = config.pad_token
    return nodes.model(
        config.family,
        [
            info("input_ids", integer, [1, new]),
            info("position_ids", integer, [1, new]),
            info("attn_bias", real, [1, 1, new, every]),
            info("score_positions", integer, [read]),
            *(info(name.replace("present", "past_key_values"), real, cache) for name in presents),
        ],
        [
            *(info(name, real, [read, widths[name]]) for name in outputs),
            *(info(name, real, [1, config.kv_heads, new, config.head_dim]) for name in presents),
        ],
        properties,
    )
