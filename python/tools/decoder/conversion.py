"""Writes weights of any type as one float32 `.safetensors` file, tensor by tensor.

Of the whole model, one tensor is in memory at a time.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
from pathlib import Path

from tools.decoder.weights import HEADER_LENGTH_BYTES, Weights

FLOAT_BYTES = 4
# A cache line, and more than safetensors asks for.
ALIGNMENT = 64


def write_float32(weights: Weights, path: Path) -> None:
    """Writes every tensor of `weights` to `path` as float32, replacing it in one step."""
    header, end = {}, 0
    names = sorted(weights.names())
    for name in names:
        shape = weights.shape(name)
        start, end = end, end + FLOAT_BYTES * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-(len(encoded) + HEADER_LENGTH_BYTES) % ALIGNMENT)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as stream:
        stream.write(struct.pack("<Q", len(encoded)) + encoded)
        for name in names:
            stream.write(weights.read(name).astype("<f4").tobytes())
    os.replace(partial, path)


def link_or_copy(source: Path, target: Path) -> None:
    """Makes `target` the same file as `source`; across file systems, a copy.

    A hard link, because ONNX Runtime refuses weights that lie outside the
    graph's folder, where a symbolic link would lead.
    """
    target.unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        partial = target.with_suffix(".partial")
        shutil.copyfile(source, partial)
        os.replace(partial, target)
