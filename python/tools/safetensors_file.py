"""Writes `.safetensors` files tensor by tensor: of the whole model, one tensor is in memory at a time."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HEADER_LENGTH_BYTES = 8
# A cache line, and more than the format asks for.
ALIGNMENT = 64
BYTES = {"F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True)
class Tensor:
    """A tensor of type `F32`, `F16` or `BF16`, which numpy has no type for: its bits, as 16-bit numbers."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def write_safetensors(tensors: Sequence[Tensor], path: Path) -> None:
    """Writes the tensors to `path`, replacing it in one step."""
    header, end = {}, 0
    for tensor in tensors:
        start, end = end, end + BYTES[tensor.dtype] * math.prod(tensor.shape)
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [start, end]}
    # Transformers reads no file that doesn't say so.
    encoded = json.dumps({"__metadata__": {"format": "pt"}, **header}, separators=(",", ":")).encode()
    encoded += b" " * (-(len(encoded) + HEADER_LENGTH_BYTES) % ALIGNMENT)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as stream:
        stream.write(struct.pack("<Q", len(encoded)) + encoded)
        for tensor in tensors:
            values = tensor.read()
            stream.write(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
    os.replace(partial, path)
