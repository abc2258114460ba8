"""Converts a model folder to half precision for GPUs, and says what that does to its scores.

    python -m tools.half_precision --model models/relevance --to fp16 --output FOLDER

`fp16` first fuses attention, norms and activations into the operators that ONNX
Runtime's CUDA provider has kernels for (`--fuse none` leaves that out, as
TensorRT wants it), then stores everything in fp16 except softmax, norms that
were not fused (fused ones sum in fp32) and what reads 8-bit weights. `bf16` keeps eight bits of precision, so
only the products with weights are computed in it, and the rest in fp32.

`precision.json` in the new folder holds the differences from fp32 on real
pairs. On a processor fp16 operators without a kernel run in fp32 between
roundings, and bf16 products are imitated by rounding what they read: the report
bounds what the format does, and only a GPU shows what its kernels add.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers import optimizer
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.onnx_model import OnnxModel

from tools.dialogues import Pair, encode_pair, load_tokenizer
from tools.onnx_file import write_model
from tools.sample_answers import sample_answers

# What overflows or loses its meaning in fp16, and what is not defined for it at this opset.
KEPT_IN_FP32 = [
    *("Softmax", "ReduceMean", "ReduceSum", "ReduceL2", "Pow", "Sqrt", "Div"),
    *("DequantizeLinear", "QuantizeLinear", "Range", "Resize"),
]
# bf16 keeps three bits fewer.
TOLERANCE = {"fp16": 2e-2, "bf16": 5e-2}
PROMPTS, CANDIDATES = 24, 4
LONGEST = 256
# What can be filled from real texts.
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class Parity:
    """How the scores of two graphs differ on the same samples."""

    samples: int
    largest_difference: float
    mean_difference: float
    tolerance: float
    # Pairs of candidates for one prompt that fp32 tells apart by more than twice the tolerance.
    clear_pairs: int
    swapped_pairs: int

    @property
    def holds(self) -> bool:
        """Whether the conversion may be used."""
        return self.largest_difference <= self.tolerance and self.swapped_pairs == 0


def parity(expected: np.ndarray, found: np.ndarray, tolerance: float) -> Parity:
    """Compares scores of shape [prompts, candidates, outputs]."""
    difference = np.abs(found - expected)
    clear = swapped = 0
    for one in range(expected.shape[1]):
        for other in range(one + 1, expected.shape[1]):
            before = expected[:, one] - expected[:, other]
            after = found[:, one] - found[:, other]
            told_apart = np.abs(before) > 2 * tolerance
            clear += int(told_apart.sum())
            swapped += int((told_apart & (before * after <= 0)).sum())
    return Parity(
        samples=expected.shape[0] * expected.shape[1],
        largest_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        tolerance=tolerance,
        clear_pairs=clear,
        swapped_pairs=swapped,
    )


def fused(path: Path, model: onnx.ModelProto) -> OnnxModel:
    """The graph with BERT's blocks as single operators; raises SystemExit if there are none."""
    heads, width = attention_shape(model)
    optimised = optimizer.optimize_model(
        str(path),
        model_type="bert",
        num_heads=heads,
        hidden_size=width,
        opt_level=0,
        optimization_options=FusionOptions("bert"),
    )
    counts = optimised.get_fused_operator_statistics()
    if counts["Attention"] == 0:
        raise SystemExit(f"{path}: no attention block was recognised; convert with --fuse none")
    print(", ".join(f"{count} {name}" for name, count in counts.items() if count))
    return optimised


def attention_shape(model: onnx.ModelProto) -> tuple[int, int]:
    """How many heads there are and how wide they are together.

    Read from the shapes that queries are reshaped to, [batch, tokens, heads, width of a head].
    """
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    producers = {output: node for node in model.graph.node for output in node.output}

    def numbers(name: str) -> list[int]:
        if name in constants:
            return constants[name].ravel().tolist()
        node = producers.get(name)
        if node is not None and node.op_type == "Constant":
            return numpy_helper.to_array(node.attribute[0].t).ravel().tolist()
        if node is not None and node.op_type in ("Concat", "Unsqueeze"):
            return [number for source in node.input for number in numbers(source) or [-1]]
        return []

    for node in model.graph.node:
        if node.op_type == "Reshape":
            tail = numbers(node.input[1])[-2:]
            if len(tail) == 2 and all(number > 1 for number in tail):
                return tail[0], tail[0] * tail[1]
    raise SystemExit("no attention heads were recognised; convert with --fuse none")


def to_fp16(graph: OnnxModel) -> onnx.ModelProto:
    """Everything in fp16 but what must not be; inputs and outputs keep their types."""
    graph.convert_float_to_float16(keep_io_types=True, op_block_list=KEPT_IN_FP32)
    # A tensor that several operators read in fp32 was cast once for each of them, under one name.
    defined: set[str] = set()
    nodes = []
    for node in graph.model.graph.node:
        if defined.isdisjoint(node.output):
            nodes.append(node)
            defined.update(filter(None, node.output))
    # Casts that were added for different reasons may have been given one name.
    for number, node in enumerate(nodes):
        node.name = f"{node.op_type}_{number}"
    del graph.model.graph.node[:]
    graph.model.graph.node.extend(nodes)
    return graph.model


def to_bf16(model: onnx.ModelProto, *, imitate: bool = False) -> onnx.ModelProto:
    """Products with weights in bf16, everything else as it is.

    With `imitate` the products read bf16 numbers and compute in fp32, which every processor can.
    """
    converted = onnx.ModelProto.FromString(model.SerializeToString())
    graph = converted.graph
    weights = {
        tensor.name: tensor
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2
    }
    rounded: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []

    def cast(source: str, target: str, element: int) -> str:
        nodes.append(helper.make_node("Cast", [source], [target], name=f"{target}_cast", to=element))
        return target

    for node in graph.node:
        if node.op_type != "MatMul" or node.input[1] not in weights:
            nodes.append(node)
            continue
        activations, weight = node.input
        if activations not in rounded:
            name = cast(activations, f"{activations}_bf16", TensorProto.BFLOAT16)
            rounded[activations] = cast(name, f"{name}_fp32", TensorProto.FLOAT) if imitate else name
        if weight not in rounded:
            rounded[weight] = f"{weight}_bf16"
            graph.initializer.append(_bf16(weights[weight], rounded[weight]))
            if imitate:
                rounded[weight] = cast(rounded[weight], f"{weight}_fp32", TensorProto.FLOAT)
        product = helper.make_node(
            "MatMul",
            [rounded[activations], rounded[weight]],
            [node.output[0] if imitate else f"{node.output[0]}_bf16"],
            name=node.name,
        )
        nodes.append(product)
        if not imitate:
            cast(product.output[0], node.output[0], TensorProto.FLOAT)
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return converted


def _bf16(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    bits = numpy_helper.to_array(tensor).astype(np.float32).view(np.uint32)
    # To the nearest, ties to even.
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    raw = rounded.astype("<u2").tobytes()
    return helper.make_tensor(name, TensorProto.BFLOAT16, tensor.dims, raw, raw=True)


def refuse_others(model: onnx.ModelProto, path: Path) -> None:
    """Raises SystemExit for a graph that takes more than tokens, as decoders that share prefixes do."""
    given = {tensor.name for tensor in model.graph.initializer}
    odd = [entry.name for entry in model.graph.input if entry.name not in given.union(INPUTS)]
    if odd:
        raise SystemExit(f"{path} takes {odd[0]}: only graphs that take {', '.join(INPUTS)} alone are converted")


def samples(tokenizer_file: Path, cache: Path, first: int = 0) -> list[dict[str, np.ndarray]]:
    """Real prompts from a number on, with their own answer and those of others, each a feed of a graph."""
    tokenizer = load_tokenizer(str(tokenizer_file))
    pairs = sample_answers(cache)[first : first + PROMPTS + CANDIDATES]
    feeds = []
    for number in range(PROMPTS):
        for candidate in range(CANDIDATES):
            pair = Pair(pairs[number][0], pairs[number + candidate][1])
            encoding = encode_pair(tokenizer, pair)
            ids = np.array([encoding.ids[:LONGEST]], dtype=np.int64)
            feeds.append(
                {
                    "input_ids": ids,
                    "attention_mask": np.ones_like(ids),
                    "token_type_ids": np.array([encoding.type_ids[:LONGEST]], dtype=np.int64),
                }
            )
    return feeds


def scores(model: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> np.ndarray:
    """The first output for each feed, in the shape [prompts, candidates, outputs]."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    rows = [session.run(None, {name: feed[name] for name in names})[0].ravel().astype(np.float64) for feed in feeds]
    return np.array(rows).reshape(PROMPTS, CANDIDATES, -1)


def manifest(text: str, precision: str) -> str:
    """The manifest for GPUs: the same model on CUDA, whose description says the precision."""
    text = re.sub(r'^description = "(.*)"$', rf'description = "\1, {precision}"', text, flags=re.MULTILINE)
    provider = 'providers = ["cuda"]'
    written, count = re.subn(r"^providers = \[[^\n]*\]$", provider, text, flags=re.MULTILINE)
    return written if count else f"{provider}\n{text}"


def convert(model_folder: Path, precision: str, fuse: str, output: Path, cache: Path) -> Parity:
    """Writes the new folder if the scores hold; returns what became of them."""
    graph = model_folder / "model.onnx"
    if not graph.is_file():
        raise SystemExit(f"{model_folder} has no model.onnx: only models that are ONNX files are converted")
    original = onnx.load(graph)
    refuse_others(original, graph)
    if precision == "fp16":
        converted = to_fp16(fused(graph, original) if fuse == "bert" else OnnxModel(onnx.load(graph)))
        compared = converted
    else:
        converted = to_bf16(original)
        compared = to_bf16(original, imitate=True)
    feeds = samples(model_folder / "tokenizer.json", cache)
    report = parity(scores(original, feeds), scores(compared, feeds), TOLERANCE[precision])

    if not report.holds:
        return report
    output.mkdir(parents=True, exist_ok=True)
    write_model(converted, output / "model.onnx")
    shutil.copyfile(model_folder / "tokenizer.json", output / "tokenizer.json")
    text = (model_folder / "model.toml").read_text()
    (output / "model.toml").write_text(manifest(text, precision))
    (output / "precision.json").write_text(
        json.dumps({"precision": precision, "fuse": fuse, **asdict(report)}, indent=1) + "\n"
    )
    return report


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Convert a model folder to half precision.")
    parser.add_argument("--model", type=Path, required=True, help="a folder with model.onnx")
    parser.add_argument("--to", choices=["fp16", "bf16"], required=True)
    parser.add_argument("--fuse", choices=["bert", "none"], default="bert", help="for fp16")
    parser.add_argument("--output", type=Path, required=True, help="the new folder")
    parser.add_argument("--cache", type=Path, default=Path(".karat/packages"))
    arguments = parser.parse_args()
    report = convert(arguments.model, arguments.to, arguments.fuse, arguments.output, arguments.cache)
    print(
        f"{arguments.output}: largest difference {report.largest_difference:.2e}, mean "
        f"{report.mean_difference:.2e}, {report.swapped_pairs} of {report.clear_pairs} clear pairs "
        f"swapped on {report.samples} real samples"
    )
    if not report.holds:
        raise SystemExit(f"nothing was written: scores differ by more than {report.tolerance}, or an order changes")


if __name__ == "__main__":
    main()
