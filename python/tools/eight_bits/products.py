"""Products with weights in 8-bit integers.

A weight has a scale for each of its columns; activations have one for each row,
taken from that row alone. So what a row gives doesn't depend on its neighbours
or on padding, to the last bit, as it does with dynamic quantisation as exporters
write it, whose scale is the whole batch's.

Some channels of activations are many times larger than others, in every text, and
would leave few integers for those. Such a channel is divided, and the weights that
it meets are multiplied (Xiao et al. 2023, "SmoothQuant"), by
`(largest activation)^a / (largest weight)^(1 - a)`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

# Where these operators of ONNX Runtime's are defined.
OWN = "com.microsoft"
# Smaller matrices aren't worth it, and are often heads, whose rounding is the score's.
SMALLEST = 64
LARGEST = 127.0
# Activations are unsigned for the kernels that processors have, with 0 in the middle.
MIDDLE = np.uint8(128)
# How much of a channel's size goes over to weights: of 0.5, 0.7 and 0.85 the one that moved scores of a decoder least.
SMOOTHED = 0.7
# Channels are no smaller than this to it.
SMALL = 1e-5
# What the outputs of a decoder's keys and values are called.
KEPT = "present."


class Converter:
    """A graph whose products with weights are written anew."""

    def __init__(self, model: onnx.ModelProto, largest: Mapping[str, np.ndarray] | None = None) -> None:
        """Takes a graph, and of values that products read the largest size of each channel, where it is known."""
        self.model = onnx.ModelProto.FromString(model.SerializeToString())
        self._weights = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self._nodes: list[onnx.NodeProto] = []
        self._rows: dict[str, tuple[str, str]] = {}
        self._opset = next(opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx"))
        self._read_later = _before_kept(self.model.graph)
        self._largest = largest or {}
        self._factors: dict[str, np.ndarray] = {}

    def read(self) -> dict[str, list[onnx.NodeProto]]:
        """The products that will be converted, by the value that they read beside their weight."""
        read: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in filter(self._is_product, self.model.graph.node):
            read[node.input[0]].append(node)
        return read

    def convert(self) -> onnx.ModelProto:
        """The graph in 8 bits; raises SystemExit where it has no product to convert."""
        graph, read = self.model.graph, self.read()
        if not read:
            raise SystemExit("the graph has no products with weights that are worth converting")
        self._factors = {
            value: self._factor(self._largest[value], nodes) for value, nodes in read.items() if value in self._largest
        }
        for node in graph.node:
            if self._is_product(node):
                self._product(node)
            else:
                self._nodes.append(node)
        del graph.node[:]
        graph.node.extend(self._nodes)
        used = {name for node in self._nodes for name in node.input}
        kept = [tensor for name, tensor in self._weights.items() if name in used]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        if all(opset.domain != OWN for opset in self.model.opset_import):
            self.model.opset_import.append(helper.make_opsetid(OWN, 1))
        return self.model

    def _is_product(self, node: onnx.NodeProto) -> bool:
        if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in self._weights:
            return False
        if self._read_later is not None and node.output[0] not in self._read_later:
            return False
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        plain = attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0 and not attributes.get("transA", 0)
        dims = self._weights[node.input[1]].dims
        return plain and len(dims) == 2 and min(dims) >= SMALLEST

    def _product(self, node: onnx.NodeProto) -> None:
        integers, scales = self._integers(node)
        rows, row_scales = self._quantised(node.input[0])
        unit, middle = self._constant("one", np.float32(1.0)), self._constant("middle", MIDDLE)
        (output,) = node.output
        product = self._add("MatMulIntegerToFloat", [rows, integers, unit, scales, middle], f"{output}:whole", OWN)
        if len(node.input) > 2:
            product = self._add("Mul", [product, row_scales], f"{output}:scaled")
            self._add("Add", [product, node.input[2]], output)
        else:
            self._add("Mul", [product, row_scales], output)

    def _numbers(self, node: onnx.NodeProto) -> np.ndarray:
        """A product's weight, with a row for each channel of what it meets."""
        by_rows = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        numbers = numpy_helper.to_array(self._weights[node.input[1]]).astype(np.float32)
        return numbers.T if by_rows else numbers

    def _factor(self, largest: np.ndarray, nodes: list[onnx.NodeProto]) -> np.ndarray:
        """What each channel is divided by, and the weights that it meets are multiplied with."""
        weights = np.max([np.abs(self._numbers(node)).max(axis=1) for node in nodes], axis=0)
        factor = np.maximum(largest, SMALL) ** SMOOTHED / np.maximum(weights, SMALL) ** (1 - SMOOTHED)
        return (factor / np.exp(np.log(factor).mean())).astype(np.float32)

    def _integers(self, node: onnx.NodeProto) -> tuple[str, str]:
        activations, weight = node.input[:2]
        numbers = self._numbers(node) * self._factors.get(activations, np.ones(1, np.float32))[:, None]
        scales = np.maximum(np.abs(numbers).max(axis=0) / LARGEST, np.finfo(np.float32).tiny).astype(np.float32)
        # One weight may meet several values.
        name = f"{weight}:{activations}"
        integers = self._constant(f"{name}:integers", np.round(numbers / scales).astype(np.int8))
        return integers, self._constant(f"{name}:scales", scales)

    def _quantised(self, value: str) -> tuple[str, str]:
        """A value's rows in 8 bits, and the scale of each; products with the same value share them."""
        if value not in self._rows:
            even = value
            if value in self._factors:
                inverse = self._constant(f"{value}:inverse", 1 / self._factors[value])
                even = self._add("Mul", [value, inverse], f"{value}:even")
            size = self._add("Abs", [even], f"{value}:sizes")
            # A row's largest number is the same whatever else there is, and so is its scale.
            last = [self._constant("last_axis", np.array([-1], np.int64))] if self._opset >= 18 else []
            attributes: dict[str, Any] = {"keepdims": 1} | ({} if last else {"axes": [-1]})
            most = self._add("ReduceMax", [size, *last], f"{value}:most", **attributes)
            scale = self._add("Mul", [most, self._constant("step", np.float32(1 / LARGEST))], f"{value}:step")
            least = self._constant("least", np.finfo(np.float32).tiny)
            scale = self._add("Max", [scale, least], f"{value}:scale")
            scaled = self._add("Div", [even, scale], f"{value}:scaled")
            unit, middle = self._constant("one", np.float32(1.0)), self._constant("middle", MIDDLE)
            self._rows[value] = (self._add("QuantizeLinear", [scaled, unit, middle], f"{value}:integers"), scale)
        return self._rows[value]

    def _add(self, operator: str, inputs: list[str], output: str, domain: str = "", **attributes: Any) -> str:
        self._nodes.append(
            helper.make_node(operator, inputs, [output], name=f"{output}:node", domain=domain, **attributes)
        )
        return output

    def _constant(self, name: str, value: np.ndarray | np.generic) -> str:
        name = f"eight_bits:{name}"
        if name not in self._weights:
            self._weights[name] = numpy_helper.from_array(np.asarray(value), name)
        return name


def _before_kept(graph: onnx.GraphProto) -> set[str] | None:
    """Of a decoder, the values that keys and values follow from; None of other graphs.

    What the last layer makes of them, and the heads, is computed for few tokens, and its rounding would be the score's.
    """
    reached = {output.name for output in graph.output if output.name.startswith(KEPT)}
    if not reached:
        return None
    for node in reversed(graph.node):
        if not reached.isdisjoint(node.output):
            reached.update(node.input)
    return reached
