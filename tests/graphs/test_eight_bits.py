"""The conversion to 8-bit products, on graphs that are made up."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tools.eight_bits.decoders import Answers
from tools.eight_bits.products import Converter
from tools.eight_bits.sums import steadied

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

    def test_a_large_channel_leaves_room_for_the_others(self, opset: int) -> None:
        rows = np.random.default_rng(4).standard_normal((5, WIDTH)).astype(np.float32)
        rows[:, 7] *= 100
        model = graph(opset)
        (first,) = (tensor for tensor in model.graph.initializer if tensor.name == "first")
        numbers = numpy_helper.to_array(first).copy()
        # What is large meets small weights.
        numbers[7] /= 100
        first.CopyFrom(numpy_helper.from_array(numbers, "first"))
        expected = run(model, rows)
        converters = [Converter(model), Converter(model, {"x": np.abs(rows).max(axis=0)})]
        plain, even = (np.abs(run(converter.convert(), rows) - expected).mean() for converter in converters)
        assert even < 0.5 * plain

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


HEADS, QUERIES, KEYS, SIZE = 4, 12, 40, 16


def attention() -> onnx.ModelProto:
    """Queries that look at keys through a mask, as decoders' graphs have it."""
    nodes = [
        helper.make_node("Transpose", ["k"], ["turned"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["q", "turned"], ["likeness"]),
        helper.make_node("Add", ["likeness", "bias"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["share"], axis=-1),
        helper.make_node("MatMul", ["share", "v"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    inputs = [
        value("q", TensorProto.FLOAT, [HEADS, 1, "m", SIZE]),
        value("k", TensorProto.FLOAT, [HEADS, 1, "n", SIZE]),
        value("v", TensorProto.FLOAT, [HEADS, 1, "n", SIZE]),
        value("bias", TensorProto.FLOAT, [1, 1, "m", "n"]),
    ]
    outputs = [value("y", TensorProto.FLOAT, [HEADS, 1, "m", SIZE])]
    made = helper.make_graph(nodes, "graph", inputs, outputs)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


class TestSteadied:
    def feed(self) -> dict[str, np.ndarray]:
        random = np.random.default_rng(5)
        sizes = {"q": QUERIES, "k": KEYS, "v": KEYS}
        feed = {name: random.standard_normal((HEADS, 1, size, SIZE)).astype(np.float32) for name, size in sizes.items()}
        return feed | {"bias": np.zeros((1, 1, QUERIES, KEYS), np.float32)}

    def run(self, model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> np.ndarray:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, feed)[0]

    def test_numbers_are_those_of_the_graph(self) -> None:
        feed = self.feed()
        np.testing.assert_allclose(self.run(steadied(attention()), feed), self.run(attention(), feed), atol=1e-5)

    @pytest.mark.parametrize("gap", [1, 7, 300])
    def test_where_keys_lie_does_not_matter(self, gap: int) -> None:
        feed, model = self.feed(), steadied(attention())
        # Others' keys lie between a text's own and those before it.
        apart = {name: np.insert(feed[name], [25] * gap, 9.0, axis=2) for name in ("k", "v")}
        apart |= {"q": feed["q"], "bias": np.insert(feed["bias"], [25] * gap, -1e9, axis=3)}
        np.testing.assert_array_equal(self.run(model, apart), self.run(model, feed))

    def test_a_query_is_the_same_alone(self) -> None:
        feed, model = self.feed(), steadied(attention())
        together = self.run(model, feed)
        for row in range(QUERIES):
            own = feed | {name: feed[name][:, :, row : row + 1] for name in ("q", "bias")}
            np.testing.assert_array_equal(self.run(model, own)[:, :, 0], together[:, :, row])


def test_of_a_decoder_what_keys_and_values_follow_from_is_converted() -> None:
    model = graph(20)
    # What is kept of the first product; the second one is a head.
    model.graph.output.append(helper.make_tensor_value_info("present.0.key", TensorProto.FLOAT, ["n", 2 * WIDTH]))
    model.graph.node.append(helper.make_node("Identity", ["inner"], ["present.0.key"]))
    kinds = [node.op_type for node in Converter(model).convert().graph.node]
    assert (kinds.count("MatMulIntegerToFloat"), kinds.count("Gemm"), kinds.count("MatMul")) == (1, 1, 1)


def test_texts_that_begin_alike_each_keep_a_token() -> None:
    assert Answers.of([[1, 2, 3], [1, 2, 4, 5]]).shared == 2
    assert Answers.of([[1, 2], [1, 2, 3]]).shared == 1
    assert Answers.of([[7], [8]]).shared == 0
