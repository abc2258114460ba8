"""The conversion to 8-bit products, on a graph that is made up."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tools.eight_bits import Converter

WIDTH, LABELS = 96, 3


def graph(opset: int) -> onnx.ModelProto:
    """Two products whose weights lie in either direction, and a head that is too small to be converted."""
    random = np.random.default_rng(1)

    def weight(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)

    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["inner"]),
        helper.make_node("Relu", ["inner"], ["active"]),
        helper.make_node("Gemm", ["active", "second", "bias"], ["outer"], transB=1),
        helper.make_node("MatMul", ["outer", "head"], ["y"]),
    ]
    weights = [
        weight("first", WIDTH, 2 * WIDTH),
        weight("second", WIDTH, 2 * WIDTH),
        weight("bias", WIDTH),
        weight("head", WIDTH, LABELS),
    ]
    value = helper.make_tensor_value_info
    inputs, outputs = [value("x", TensorProto.FLOAT, ["n", WIDTH])], [value("y", TensorProto.FLOAT, ["n", LABELS])]
    made = helper.make_graph(nodes, "graph", inputs, outputs, weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def run(model: onnx.ModelProto, rows: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": rows})[0]


@pytest.mark.parametrize("opset", [14, 20])
class TestEightBits:
    def test_a_row_does_not_depend_on_its_neighbours(self, opset: int) -> None:
        rows = np.random.default_rng(2).standard_normal((7, WIDTH)).astype(np.float32)
        # One scale for all rows would leave nothing of the others beside it.
        rows[3] *= 1e4
        converted = Converter(graph(opset)).convert()
        together = run(converted, rows)
        for number, row in enumerate(rows):
            np.testing.assert_array_equal(run(converted, row[None])[0], together[number])

    def test_numbers_are_those_of_the_graph_rounded(self, opset: int) -> None:
        rows = np.random.default_rng(3).standard_normal((5, WIDTH)).astype(np.float32)
        rows[4] = 0.0
        expected = run(graph(opset), rows)
        found = run(Converter(graph(opset)).convert(), rows)
        assert np.abs(found - expected).max() < 0.1 * expected.std()
        np.testing.assert_allclose(found[4], expected[4], rtol=0.02)

    def test_heads_stay_as_they_are(self, opset: int) -> None:
        converted = Converter(graph(opset)).convert().graph
        kinds = [node.op_type for node in converted.node]
        assert kinds.count("MatMulIntegerToFloat") == 2
        assert kinds.count("MatMul") == 1
        kept = {tensor.name for tensor in converted.initializer}
        assert {"head", "bias"} <= kept
        assert not {"first", "second"} & kept


def test_a_graph_without_large_products_is_refused() -> None:
    model = graph(20)
    nodes = [node for node in model.graph.node if node.op_type == "Relu"]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    with pytest.raises(SystemExit, match="no products"):
        Converter(model).convert()
