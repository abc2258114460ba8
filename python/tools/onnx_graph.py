"""Graphs that are written node by node: what every one of them needs beyond `onnx.helper`.

Writing a graph needs no deep-learning framework, only names for what lies between its nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

# The first opset with Gelu as an operator of its own, which ONNX Runtime runs
# as one kernel; LayerNormalization needs 17.
OPSET = 20
IR_VERSION = 10
# Part of every graph's bytes, and so of a model's version: another name would give equal models other versions.
PRODUCER = "karat models/tools"


class GraphBuilder:
    """Collects nodes and initialisers, and invents the names between them, which begin with `prefix`."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: np.ndarray | np.generic) -> str:
        """Stores `value` once under `name` and returns the name."""
        name = self.prefix + name
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def add(self, op: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Adds a node with one output and returns that output's name."""
        name = output or self.next_name(op)
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def next_name(self, op: str) -> str:
        """What the next node is called."""
        return f"{self.prefix}{op}_{len(self.nodes)}"

    def model(
        self,
        name: str,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
        properties: Mapping[str, object] | None = None,
    ) -> onnx.ModelProto:
        """Closes the graph over its inputs and outputs."""
        graph = helper.make_graph(self.nodes, name, inputs, outputs, list(self.initializers.values()))
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name=PRODUCER)
        if properties:
            helper.set_model_props(model, {key: str(value) for key, value in properties.items()})
        return model
