"""Attention whose numbers don't depend on where a row's keys lie.

A sum in floating point depends on its order, by a few millionths, and which keys
are added up together depends on what else is in a row. In fp32 nobody would
notice; where rows are rounded to 8 bits behind it, a millionth makes an integer
another one, and a few layers later every integer. So what attention sums up, it
sums up in 64 bits here: rounded to 32, those sums are the same in any order. No
product has one row alone either, for which kernels add up in an order of their own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PREFIX = "sums:"


def steadied(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with its attention written anew, where that is a softmax between two products."""
    return _Attention(model).convert()


class _Attention:
    """A graph on its way."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = onnx.ModelProto.FromString(model.SerializeToString())
        self._writers = {output: node for node in self._model.graph.node for output in node.output}
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._longer: dict[str, str] = {}

    def convert(self) -> onnx.ModelProto:
        """The graph with steady sums."""
        graph = self._model.graph
        softmaxes = {node.output[0]: node for node in graph.node if node.op_type == "Softmax"}
        products = [node for node in graph.node if node.op_type == "MatMul" and node.input[0] in softmaxes]
        drawn = {node.output[0]: softmaxes[node.input[0]] for node in products}
        masked = {softmax.input[0] for softmax in drawn.values()}
        likenesses = {self._product_before(name) for name in masked}
        gone = {node.input[0] for node in products}
        for node in graph.node:
            (output, *_) = node.output
            if output in gone:
                continue
            if output in likenesses:
                node.input[0] = self._one_row_longer(node.input[0])
            elif output in masked:
                node.input[1] = self._one_row_longer(node.input[1])
            if output in drawn:
                self._draw(drawn[output].input[0], node.input[1], output)
            else:
                self._nodes.append(node)
        del graph.node[:]
        graph.node.extend(self._nodes)
        graph.initializer.extend(self._constants.values())
        return self._model

    def _product_before(self, masked: str) -> str:
        """The product that likenesses come from, whatever bounds them."""
        node = self._writers[masked]
        while node.op_type != "MatMul":
            node = self._writers[node.input[0]]
        return node.output[0]

    def _draw(self, masked: str, values: str, output: str) -> None:
        last = self._integers("last_axis", -1)
        most = self._add("ReduceMax", [masked, last], f"{output}:most", keepdims=1)
        below = self._add("Sub", [masked, most], f"{output}:below")
        parts = self._add("Exp", [below], f"{output}:parts32")
        parts = self._add("Cast", [parts], f"{output}:parts", to=TensorProto.DOUBLE)
        wide = self._add("Cast", [values], f"{output}:values", to=TensorProto.DOUBLE)
        whole = self._add("ReduceSum", [parts, last], f"{output}:whole", keepdims=1)
        sums = self._add("MatMul", [parts, wide], f"{output}:sums")
        sums = self._add("Slice", [sums, self._integers("from", 0), last, self._integers("rows", 2)], f"{output}:own")
        whole = self._add(
            "Slice", [whole, self._integers("from", 0), last, self._integers("rows", 2)], f"{output}:own_whole"
        )
        drawn = self._add("Div", [sums, whole], f"{output}:drawn")
        self._add("Cast", [drawn], output, to=TensorProto.FLOAT)

    def _one_row_longer(self, value: str) -> str:
        """Queries or a mask with their first row once more at their end."""
        if value not in self._longer:
            rows = self._integers("rows", 2)
            first = self._add(
                "Slice", [value, self._integers("from", 0), self._integers("to", 1), rows], f"{value}:first"
            )
            self._longer[value] = self._add("Concat", [value, first], f"{value}:longer", axis=2)
        return self._longer[value]

    def _integers(self, name: str, value: int) -> str:
        name = PREFIX + name
        self._constants[name] = numpy_helper.from_array(np.array([value], np.int64), name)
        return name

    def _add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(operator, inputs, [output], name=f"{output}:node", **attributes))
        return output
