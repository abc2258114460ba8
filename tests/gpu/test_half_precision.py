"""The conversion to half precision, on graphs that are made up."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers.onnx_model import OnnxModel

from tests.server_files import ROOT
from tools import half_precision


def test_a_tensor_that_several_operators_read_in_fp32_is_cast_once() -> None:
    nodes = [
        helper.make_node("Sub", ["x", "mean"], ["centred"], name="sub"),
        helper.make_node("Pow", ["centred", "two"], ["squared"], name="pow"),
        helper.make_node("Div", ["centred", "two"], ["halved"], name="div"),
        helper.make_node("Add", ["squared", "halved"], ["y"], name="add"),
    ]

    def constant(name: str, value: float) -> TensorProto:
        return numpy_helper.from_array(np.array(value, np.float32), name)

    graph = helper.make_graph(
        nodes,
        "norm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        [constant("mean", 1.5), constant("two", 2.0)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    converted = half_precision.to_fp16(OnnxModel(model))
    session = onnxruntime.InferenceSession(converted.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.array([0.5, 4.5], np.float32)})
    # 1 - 0.5 and 9 + 1.5, all of which fp16 holds exactly.
    np.testing.assert_array_equal(found, [0.5, 10.5])


class TestWhatIsNotConverted:
    def convert(self, folder: Path) -> None:
        half_precision.convert(folder, "fp16", "none", folder / "half", folder)

    def test_a_checkpoint(self) -> None:
        with pytest.raises(SystemExit, match=r"tiny_decoder_lm has no model\.onnx"):
            self.convert(ROOT / "tests/graphs/tiny_decoder_lm")

    def test_a_decoder(self, tmp_path: Path) -> None:
        shutil.copy(ROOT / "tests/graphs/tiny_decoder_lm.onnx", tmp_path / "model.onnx")
        with pytest.raises(SystemExit, match="takes position_ids: only graphs that take input_ids"):
            self.convert(tmp_path)
