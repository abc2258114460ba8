"""Converts a model folder to 8-bit products for processors, and says what that does to its scores.

    python -m tools.eight_bits --model models/relevance --output FOLDER

Each product with a weight computes in 8-bit integers. A weight has a scale for
each of its columns; activations have one for each row, taken from that row
alone. So a text's score doesn't depend on its neighbours or on padding, to the
last bit, as it does with dynamic quantisation as exporters write it, whose
scale is the whole batch's.

`precision.json` in the new folder holds the differences from fp32 on real
pairs, and how long those take in 8 bits against fp32, one by one on one thread.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from tools.half_precision import Parity, parity, refuse_others, samples, scores
from tools.onnx_file import write_model

# Where these operators of ONNX Runtime's are defined.
OWN = "com.microsoft"
# Smaller matrices aren't worth it, and are often heads, whose rounding is the score's.
SMALLEST = 64
# How far a score may move, in standard deviations of scores.
TOLERANCE = 0.1
LARGEST = 127.0
# Activations are unsigned for the kernels that processors have, with 0 in the middle.
MIDDLE = np.uint8(128)
ROUNDS = 3


class Converter:
    """A graph whose products with weights are written anew."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto.FromString(model.SerializeToString())
        self._weights = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self._nodes: list[onnx.NodeProto] = []
        self._rows: dict[str, tuple[str, str]] = {}
        self._opset = next(opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx"))

    def convert(self) -> onnx.ModelProto:
        """The graph in 8 bits; raises SystemExit where it has no product to convert."""
        graph = self.model.graph
        converted = 0
        for node in graph.node:
            if self._is_product(node):
                self._product(node)
                converted += 1
            else:
                self._nodes.append(node)
        if not converted:
            raise SystemExit("the graph has no products with weights that are worth converting")
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
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        plain = attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0 and not attributes.get("transA", 0)
        dims = self._weights[node.input[1]].dims
        return plain and len(dims) == 2 and min(dims) >= SMALLEST

    def _product(self, node: onnx.NodeProto) -> None:
        activations, weight, *bias = node.input
        by_rows = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        integers, scales = self._integers(weight, by_rows)
        rows, row_scales = self._quantised(activations)
        unit, middle = self._constant("one", np.float32(1.0)), self._constant("middle", MIDDLE)
        (output,) = node.output
        product = self._add("MatMulIntegerToFloat", [rows, integers, unit, scales, middle], f"{output}:whole", OWN)
        if bias:
            product = self._add("Mul", [product, row_scales], f"{output}:scaled")
            self._add("Add", [product, bias[0]], output)
        else:
            self._add("Mul", [product, row_scales], output)

    def _integers(self, weight: str, by_rows: bool) -> tuple[str, str]:
        numbers = numpy_helper.to_array(self._weights[weight]).astype(np.float32)
        numbers = numbers.T if by_rows else numbers
        scales = np.maximum(np.abs(numbers).max(axis=0) / LARGEST, np.finfo(np.float32).tiny).astype(np.float32)
        integers = self._constant(f"{weight}:integers", np.round(numbers / scales).astype(np.int8))
        return integers, self._constant(f"{weight}:scales", scales)

    def _quantised(self, value: str) -> tuple[str, str]:
        """A value's rows in 8 bits, and the scale of each; products with the same value share them."""
        if value not in self._rows:
            size = self._add("Abs", [value], f"{value}:sizes")
            # A row's largest number is the same whatever else there is, and so is its scale.
            last = [self._constant("last_axis", np.array([-1], np.int64))] if self._opset >= 18 else []
            attributes: dict[str, Any] = {"keepdims": 1} | ({} if last else {"axes": [-1]})
            most = self._add("ReduceMax", [size, *last], f"{value}:most", **attributes)
            scale = self._add("Mul", [most, self._constant("step", np.float32(1 / LARGEST))], f"{value}:step")
            least = self._constant("least", np.finfo(np.float32).tiny)
            scale = self._add("Max", [scale, least], f"{value}:scale")
            scaled = self._add("Div", [value, scale], f"{value}:scaled")
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


def time_ratio(original: onnx.ModelProto, converted: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> float:
    """The processor time of the new graph for the feeds over the old one's: the median of a few rounds in turns."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    sessions = [
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for model in (original, converted)
    ]
    names = [entry.name for entry in sessions[0].get_inputs()]
    ratios = []
    for _ in range(ROUNDS):
        taken = []
        for session in sessions:
            started = time.process_time()
            for feed in feeds:
                session.run(None, {name: feed[name] for name in names})
            taken.append(time.process_time() - started)
        ratios.append(taken[1] / taken[0])
    return statistics.median(ratios)


def convert(model_folder: Path, output: Path, cache: Path) -> tuple[Parity, float]:
    """Writes the new folder if the scores hold; returns what became of them, and the ratio of times."""
    graph = model_folder / "model.onnx"
    if not graph.is_file():
        raise SystemExit(f"{model_folder} has no model.onnx: only models that are ONNX files are converted")
    original = onnx.load(graph)
    refuse_others(original, graph)
    converted = Converter(original).convert()
    feeds = samples(model_folder / "tokenizer.json", cache)
    expected = scores(original, feeds)
    report = parity(expected, scores(converted, feeds), TOLERANCE * float(expected.std(axis=(0, 1)).min()))
    ratio = time_ratio(original, converted, feeds)
    if not report.holds:
        return report, ratio
    output.mkdir(parents=True, exist_ok=True)
    write_model(converted, output / "model.onnx")
    for name in ("tokenizer.json", "model.toml"):
        shutil.copyfile(model_folder / name, output / name)
    told = {"precision": "int8", "time_ratio": ratio, **asdict(report)}
    (output / "precision.json").write_text(json.dumps(told, indent=1) + "\n")
    return report, ratio


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Convert a model folder to 8-bit products.")
    parser.add_argument("--model", type=Path, required=True, help="a folder with model.onnx")
    parser.add_argument("--output", type=Path, required=True, help="the new folder")
    parser.add_argument("--cache", type=Path, default=Path(".karat/packages"))
    arguments = parser.parse_args()
    report, ratio = convert(arguments.model, arguments.output, arguments.cache)
    print(
        f"{arguments.output}: {ratio:.2f} of the time; largest difference {report.largest_difference:.2e}, mean "
        f"{report.mean_difference:.2e}, {report.swapped_pairs} of {report.clear_pairs} clear pairs "
        f"swapped on {report.samples} real samples"
    )
    if not report.holds:
        raise SystemExit(f"nothing was written: scores differ by more than {report.tolerance:.2e}, or an order changes")


if __name__ == "__main__":
    main()
