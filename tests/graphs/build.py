"""Builds the graphs of the integration tests: `.venv/bin/python -m tests.graphs.build`.

Each is small enough to compute by hand. They are committed, so that the Rust tests need no Python; run this after a
change and commit what it writes. Unless a graph says otherwise it takes `input_ids` and `attention_mask`, int64
[batch, sequence], and gives `logits` [batch, 1], where a sample's logit is the sum of its token ids over 1000.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper, shape_inference

FOLDER = Path(__file__).parent
TOKEN_AXES = ["batch", "sequence"]
# The id that not_a_number.onnx answers with NaN, and the one that it answers with infinity.
NAN_TOKEN = 13
INFINITY_TOKEN = 14

# ids, mask -> total, float [batch, 1]: the sum of the ids that the mask lets through, over 1000.
TOTAL = [
    helper.make_node("Mul", ["input_ids", "attention_mask"], ["masked"]),
    helper.make_node("ReduceSum", ["masked", "axis_1"], ["sum"], keepdims=1),
    helper.make_node("Cast", ["sum"], ["sum_float"], to=TensorProto.FLOAT),
    helper.make_node("Div", ["sum_float", "thousand"], ["total"]),
]
TOTAL_CONSTANTS: dict[str, np.ndarray] = {"axis_1": np.array([1], np.int64), "thousand": np.array(1000, np.float32)}


def graph(
    name: str,
    nodes: list[NodeProto],
    constants: Mapping[str, np.ndarray],
    outputs: dict[str, list[str | int]],
    token_axes: list[str] | list[int] = TOKEN_AXES,
    ids_type: int = TensorProto.INT64,
    inputs: Sequence[str] = ("input_ids", "attention_mask"),
) -> ModelProto:
    """A checked model out of `nodes`, with the usual two inputs and float outputs of the given axes."""
    model = helper.make_model(
        helper.make_graph(
            nodes,
            name,
            [helper.make_tensor_value_info(name, ids_type, token_axes) for name in inputs],
            [helper.make_tensor_value_info(key, TensorProto.FLOAT, axes) for key, axes in outputs.items()],
            [numpy_helper.from_array(value, key) for key, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    checker.check_model(model, full_check=True)
    shape_inference.infer_shapes(model, strict_mode=True)
    return model


def sum_graph() -> ModelProto:
    """The plain one."""
    nodes = [*TOTAL, helper.make_node("Identity", ["total"], ["logits"])]
    return graph("sum", nodes, TOTAL_CONSTANTS, {"logits": ["batch", 1]})


def members() -> ModelProto:
    """An ensemble of three: the sum times 1, 2 and -1."""
    nodes = [*TOTAL, helper.make_node("Mul", ["total", "factors"], ["logits"])]
    constants: dict[str, np.ndarray] = {**TOTAL_CONSTANTS, "factors": np.array([[1, 2, -1]], np.float32)}
    return graph("members", nodes, constants, {"logits": ["batch", 3]})


def not_a_number() -> ModelProto:
    """The sum, but NaN for samples that hold one token and infinity for those that hold another."""
    nodes = [
        *TOTAL,
        helper.make_node("Equal", ["input_ids", "nan_token"], ["is_nan_token"]),
        helper.make_node("Equal", ["input_ids", "infinity_token"], ["is_infinity_token"]),
        helper.make_node("Where", ["is_infinity_token", "infinity", "zero"], ["infinities"]),
        helper.make_node("Where", ["is_nan_token", "nan", "infinities"], ["poison"]),
        helper.make_node("ReduceSum", ["poison", "axis_1"], ["poison_sum"], keepdims=1),
        helper.make_node("Add", ["total", "poison_sum"], ["logits"]),
    ]
    constants: dict[str, np.ndarray] = {
        **TOTAL_CONSTANTS,
        "nan_token": np.array(NAN_TOKEN, np.int64),
        "infinity_token": np.array(INFINITY_TOKEN, np.int64),
        "nan": np.array(np.nan, np.float32),
        "infinity": np.array(np.inf, np.float32),
        "zero": np.array(0, np.float32),
    }
    return graph("not_a_number", nodes, constants, {"logits": ["batch", 1]})


def fixed_shape() -> ModelProto:
    """Exported without dynamic axes, as happens when an exporter isn't told of them."""
    nodes = [*TOTAL, helper.make_node("Identity", ["total"], ["logits"])]
    return graph("fixed_shape", nodes, TOTAL_CONSTANTS, {"logits": [1, 1]}, token_axes=[1, 16])


def float_ids() -> ModelProto:
    """Takes its token ids as float."""
    nodes = [
        helper.make_node("Mul", ["input_ids", "attention_mask"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "axis_1"], ["logits"], keepdims=1),
    ]
    constants: dict[str, np.ndarray] = {"axis_1": TOTAL_CONSTANTS["axis_1"]}
    return graph("float_ids", nodes, constants, {"logits": ["batch", 1]}, ids_type=TensorProto.FLOAT)


def two_outputs() -> ModelProto:
    """`quality` is the sum, `margin` ten times that; neither is called `logits`."""
    nodes = [
        *TOTAL,
        helper.make_node("Identity", ["total"], ["quality"]),
        helper.make_node("Mul", ["total", "ten"], ["margin"]),
    ]
    constants: dict[str, np.ndarray] = {**TOTAL_CONSTANTS, "ten": np.array(10, np.float32)}
    return graph("two_outputs", nodes, constants, {"quality": ["batch", 1], "margin": ["batch", 1]})


def tokens() -> ModelProto:
    """Two numbers a token, id/1000 and its negative: what a token classifier gives."""
    nodes = [
        helper.make_node("Mul", ["input_ids", "attention_mask"], ["masked"]),
        helper.make_node("Cast", ["masked"], ["masked_float"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["masked_float", "axis_2"], ["column"]),
        helper.make_node("Mul", ["column", "factors"], ["logits"]),
    ]
    constants: dict[str, np.ndarray] = {
        "axis_2": np.array([2], np.int64),
        "factors": np.array([[[0.001, -0.001]]], np.float32),
    }
    return graph("tokens", nodes, constants, {"logits": ["batch", "sequence", 2]})


def steps() -> ModelProto:
    """Two numbers a token, 0 and (the id before it less 100) over 100: a process reward model, whose step marks judge
    what stands right before them."""
    nodes = [
        helper.make_node("Mul", ["input_ids", "attention_mask"], ["masked"]),
        helper.make_node("Cast", ["masked"], ["masked_float"], to=TensorProto.FLOAT),
        helper.make_node("Pad", ["masked_float", "one_before"], ["shifted"]),
        helper.make_node("Slice", ["shifted", "start", "all_but_last", "axis_1"], ["before"]),
        helper.make_node("Sub", ["before", "hundred"], ["centred"]),
        helper.make_node("Unsqueeze", ["centred", "axis_2"], ["column"]),
        helper.make_node("Mul", ["column", "factors"], ["logits"]),
    ]
    constants: dict[str, np.ndarray] = {
        "axis_1": np.array([1], np.int64),
        "axis_2": np.array([2], np.int64),
        "one_before": np.array([0, 1, 0, 0], np.int64),
        "start": np.array([0], np.int64),
        "all_but_last": np.array([-1], np.int64),
        "hundred": np.array(100, np.float32),
        "factors": np.array([[[0, 0.01]]], np.float32),
    }
    return graph("steps", nodes, constants, {"logits": ["batch", "sequence", 2]})


def dynamic_int8() -> ModelProto:
    """A layer in dynamically quantised integers: its scale is the largest value of the whole batch over 255, so that
    a sample of small ids loses its digits beside one of large ids."""
    nodes = [
        helper.make_node("Mul", ["input_ids", "attention_mask"], ["masked"]),
        helper.make_node("Cast", ["masked"], ["masked_float"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["masked_float", "axis_2"], ["column"]),
        helper.make_node("Mul", ["column", "spread"], ["activations"]),
        helper.make_node("DynamicQuantizeLinear", ["activations"], ["quantised", "scale", "zero_point"]),
        helper.make_node("MatMulInteger", ["quantised", "weights", "zero_point"], ["product"]),
        helper.make_node("Cast", ["product"], ["product_float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["product_float", "scale"], ["scaled"]),
        helper.make_node("ReduceSum", ["scaled", "axes_1_2"], ["reduced"], keepdims=0),
        helper.make_node("Unsqueeze", ["reduced", "axis_1"], ["logits"]),
    ]
    constants: dict[str, np.ndarray] = {
        "axis_1": np.array([1], np.int64),
        "axis_2": np.array([2], np.int64),
        "axes_1_2": np.array([1, 2], np.int64),
        "spread": np.array([[[0.0011, -0.0007, 0.0003, 0.0019]]], np.float32),
        "weights": np.array([[3], [-2], [5], [1]], np.int8),
    }
    return graph("dynamic_int8", nodes, constants, {"logits": ["batch", 1]})


def last_place() -> ModelProto:
    """The last id that isn't 9, over 1000: a decoder's classifier, which looks for padding and not at its mask."""
    nodes = [
        helper.make_node("Equal", ["input_ids", "nine"], ["is_padding"]),
        helper.make_node("Not", ["is_padding"], ["is_token"]),
        helper.make_node("Cast", ["is_token"], ["tokens"], to=TensorProto.INT64),
        helper.make_node("CumSum", ["tokens", "axis_1_alone"], ["so_far"]),
        helper.make_node("Mul", ["so_far", "tokens"], ["places"]),
        helper.make_node("ArgMax", ["places"], ["last"], axis=1, keepdims=1),
        helper.make_node("GatherElements", ["input_ids", "last"], ["id"], axis=1),
        helper.make_node("Cast", ["id"], ["id_float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["id_float", "thousand"], ["score"]),
        # The mask is an input as of any exported decoder; what it hides is looked for elsewhere.
        helper.make_node("ReduceMax", ["attention_mask"], ["any"], axes=[1], keepdims=1),
        helper.make_node("Cast", ["any"], ["any_float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["score", "any_float"], ["logits"]),
    ]
    constants: dict[str, np.ndarray] = {
        "nine": np.array(9, np.int64),
        "axis_1_alone": np.array(1, np.int64),
        "thousand": TOTAL_CONSTANTS["thousand"],
    }
    return graph("last_place", nodes, constants, {"logits": ["batch", 1]})


def mean_of_places() -> ModelProto:
    """The mean of all ids, padding too: it has no mask."""
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["ids"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["ids"], ["logits"], axes=[1], keepdims=1),
    ]
    return graph("mean_of_places", nodes, {}, {"logits": ["batch", 1]}, inputs=["input_ids"])


def centred() -> ModelProto:
    """The sum less half its mean over the batch, as a normalisation in training mode: half the sum of a text alone."""
    nodes = [
        *TOTAL,
        helper.make_node("ReduceMean", ["total"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Mul", ["mean", "half"], ["half_mean"]),
        helper.make_node("Sub", ["total", "half_mean"], ["logits"]),
    ]
    constants: dict[str, np.ndarray] = {**TOTAL_CONSTANTS, "half": np.array(0.5, np.float32)}
    return graph("centred", nodes, constants, {"logits": ["batch", 1]})


def drawn() -> ModelProto:
    """The sum and a number that is drawn in every pass, as dropout that was exported does."""
    nodes = [
        *TOTAL,
        helper.make_node("RandomNormalLike", ["total"], ["noise"]),
        helper.make_node("Add", ["total", "noise"], ["logits"]),
    ]
    return graph("drawn", nodes, TOTAL_CONSTANTS, {"logits": ["batch", 1]})


def small_table() -> ModelProto:
    """Sums a number for each token, out of a table of 200: id over 1000."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "axis_2"], ["column"]),
        helper.make_node("Mul", ["embedded", "column"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "axis_1"], ["logits"], keepdims=0),
    ]
    constants: dict[str, np.ndarray] = {
        "table": (np.arange(200, dtype=np.float32) / 1000).reshape(200, 1),
        "axis_1": TOTAL_CONSTANTS["axis_1"],
        "axis_2": np.array([2], np.int64),
    }
    return graph("small_table", nodes, constants, {"logits": ["batch", 1]})


def half() -> ModelProto:
    """A small network in half precision: a hidden layer of 4 for each token, summed over the tokens."""
    nodes = [
        helper.make_node("Mul", ["input_ids", "attention_mask"], ["masked"]),
        helper.make_node("Cast", ["masked"], ["ids"], to=TensorProto.FLOAT16),
        helper.make_node("Unsqueeze", ["ids", "axis_2"], ["column"]),
        helper.make_node("MatMul", ["column", "spread"], ["hidden"]),
        helper.make_node("Tanh", ["hidden"], ["bent"]),
        helper.make_node("MatMul", ["bent", "gather"], ["numbers"]),
        helper.make_node("ReduceSum", ["numbers", "axis_1"], ["score"], keepdims=0),
        helper.make_node("Cast", ["score"], ["logits"], to=TensorProto.FLOAT),
    ]
    constants: dict[str, np.ndarray] = {
        "axis_1": TOTAL_CONSTANTS["axis_1"],
        "axis_2": np.array([2], np.int64),
        "spread": np.array([[0.0011, -0.0007, 0.0003, 0.0019]], np.float16),
        "gather": np.array([[0.3], [-0.2], [0.5], [0.1]], np.float16),
    }
    return graph("half", nodes, constants, {"logits": ["batch", 1]})


def image_graph(
    name: str, axes: list[str | int], over: list[int], output: str, mixed: list[NodeProto] | None = None
) -> ModelProto:
    """The mean of each channel of an image, as logits or as a vector to compare; `mixed` makes that of `means`."""
    means = helper.make_node("ReduceMean", ["pixel_values"], ["means" if mixed else output], axes=over, keepdims=0)
    model = helper.make_model(
        helper.make_graph(
            [means, *(mixed or [])],
            name,
            [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, axes)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", 3])],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    checker.check_model(model, full_check=True)
    return model


def image_means() -> ModelProto:
    """Takes its channels first, and images of any size."""
    return image_graph("image_means", ["batch", 3, "height", "width"], [2, 3], "logits")


def image_means_last() -> ModelProto:
    """Takes its channels last, and images of 4 by 4 pixels."""
    return image_graph("image_means_last", ["batch", 4, 4, 3], [1, 2], "logits")


def image_vectors() -> ModelProto:
    """The side of images of a model that compares them with texts."""
    return image_graph("image_vectors", ["batch", 3, "height", "width"], [2, 3], "image_embeds")


def image_centred() -> ModelProto:
    """The means less those of the whole batch, as a normalisation in training mode: 0 of an image alone."""
    mixed = [
        helper.make_node("ReduceMean", ["means"], ["of_batch"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["means", "of_batch"], ["logits"]),
    ]
    return image_graph("image_centred", ["batch", 3, "height", "width"], [2, 3], "logits", mixed)


def text_vectors() -> ModelProto:
    """The side of texts: the sum of the ids over 1000, 1 and 0."""
    nodes = [
        *TOTAL,
        helper.make_node("Mul", ["total", "first"], ["one"]),
        helper.make_node("Add", ["one", "rest"], ["text_embeds"]),
    ]
    constants: dict[str, np.ndarray] = {
        **TOTAL_CONSTANTS,
        "first": np.array([[1, 0, 0]], np.float32),
        "rest": np.array([[0, 1, 0]], np.float32),
    }
    return graph("text_vectors", nodes, constants, {"text_embeds": ["batch", 3]})


def main() -> None:
    """Writes every graph beside this file."""
    sound = [sum_graph, members, not_a_number, two_outputs, tokens, steps, half]
    faulty = [fixed_shape, float_ids, dynamic_int8, last_place, mean_of_places, centred, drawn, small_table]
    images = [image_means, image_means_last, image_vectors, image_centred, text_vectors]
    for build in [*sound, *faulty, *images]:
        model = build()
        (FOLDER / f"{model.graph.name}.onnx").write_bytes(model.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
