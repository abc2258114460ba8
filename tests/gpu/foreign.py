"""A graph that others exported, without its weights: they make nine tenths of it, and random ones are as fast.

`strip` runs where the `onnx` package is; `restore` needs nothing but the standard library.
"""

from __future__ import annotations

import array
import json
import random
import struct
from pathlib import Path
from typing import Any

GRAPH, WEIGHTS, CONTENTS = "model.onnx", "weights.bin", "contents.json"
# Smaller tensors stay: among them are shapes, axes and the numbers of norms.
LEAST_BYTES = 2048
SPREAD = 0.05
DRAWN = 65_521
SEED = 8
# ONNX's numbers for types, and how Python packs them; bytes are weights that the graph scales.
FLOAT, HALF = 1, 10
FORMATS = {FLOAT: "f", HALF: "e"}
BYTES = (2, 3)


def strip(graph: Path, target: Path) -> None:
    """Writes the graph to the folder `target`, its weights moved to a file that isn't written."""
    import onnx
    from onnx.external_data_helper import set_external_data

    model = onnx.load(str(graph))
    contents: list[tuple[int, int]] = []
    end = 0
    for tensor in model.graph.initializer:
        if tensor.data_type not in (*FORMATS, *BYTES):
            continue
        size = len(onnx.numpy_helper.to_array(tensor).tobytes())
        if size < LEAST_BYTES:
            continue
        # Only what is raw can lie in another file.
        tensor.raw_data = b""
        tensor.ClearField("float_data")
        tensor.ClearField("int32_data")
        set_external_data(tensor, WEIGHTS, offset=end, length=size)
        tensor.ClearField("raw_data")
        contents.append((tensor.data_type, size))
        end += size
    target.mkdir(parents=True, exist_ok=True)
    (target / GRAPH).write_bytes(model.SerializeToString())
    (target / CONTENTS).write_text(json.dumps(contents))


def restore(folder: Path) -> None:
    """Writes random weights beside the graph, unless they are there."""
    weights = folder / WEIGHTS
    if weights.is_file():
        return
    generator = random.Random(SEED)
    drawn = array.array("f", (generator.gauss(0.0, SPREAD) for _ in range(DRAWN)))
    numbers = {kind: struct.pack(f"<{DRAWN}{letter}", *drawn) for kind, letter in FORMATS.items()}
    numbers |= dict.fromkeys(BYTES, generator.randbytes(DRAWN))
    contents: list[Any] = json.loads((folder / CONTENTS).read_text())
    partial = weights.with_suffix(".partial")
    with partial.open("wb") as stream:
        for kind, size in contents:
            whole, rest = divmod(size, len(numbers[kind]))
            stream.write(numbers[kind] * whole + numbers[kind][:rest])
    partial.replace(weights)
