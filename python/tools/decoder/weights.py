"""Where a model's tensors come from, and how a graph refers to them.

A tensor in a float32 `.safetensors` file becomes external data: the graph names
file, offset and length, and ONNX Runtime maps the bytes. Nothing is copied.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from onnx import TensorProto, numpy_helper

from tools.decoder.config import Unsupported

HEADER_LENGTH_BYTES = 8
INDEX = "model.safetensors.index.json"


class Weights(Protocol):
    """Named float32 tensors."""

    def names(self) -> set[str]:
        """Every tensor's name."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape; raises Unsupported where there is no such tensor."""
        ...

    def read(self, name: str) -> np.ndarray:
        """A tensor's values, float32."""
        ...

    def initializer(self, name: str) -> TensorProto:
        """The tensor as an initialiser of a graph beside which the files lie."""
        ...


class ArrayWeights:
    """Tensors in memory, which a graph holds itself."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self._arrays = {name: np.asarray(value, np.float32) for name, value in arrays.items()}

    def names(self) -> set[str]:
        """As `Weights.names`."""
        return set(self._arrays)

    def shape(self, name: str) -> tuple[int, ...]:
        """As `Weights.shape`."""
        return self.read(name).shape

    def read(self, name: str) -> np.ndarray:
        """As `Weights.read`."""
        if name not in self._arrays:
            raise Unsupported(f"there is no tensor {name}")
        return self._arrays[name]

    def initializer(self, name: str) -> TensorProto:
        """As `Weights.initializer`."""
        return numpy_helper.from_array(self.read(name), name)


@dataclass(frozen=True)
class Place:
    """Where the bytes of a tensor lie."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int


class SafetensorsWeights:
    """Tensors in float32 `.safetensors` files, which the graph refers to by name and offset."""

    def __init__(self, files: list[Path]) -> None:
        self._places: dict[str, Place] = {}
        for file in files:
            for name, place in read_header(file).items():
                if name in self._places:
                    raise Unsupported(f"{name} is in two files, {file.name} is the second")
                self._places[name] = place

    def names(self) -> set[str]:
        """As `Weights.names`."""
        return set(self._places)

    def dtypes(self) -> set[str]:
        """The types of the tensors, as safetensors spells them: `F32`, `BF16`."""
        return {place.dtype for place in self._places.values()}

    def shape(self, name: str) -> tuple[int, ...]:
        """As `Weights.shape`."""
        return self._place(name).shape

    def read(self, name: str) -> np.ndarray:
        """As `Weights.read`."""
        place = self._place(name)
        with place.file.open("rb") as stream:
            stream.seek(place.offset)
            raw = stream.read(place.length)
        return as_float32(raw, place.dtype, name).reshape(place.shape)

    def initializer(self, name: str) -> TensorProto:
        """As `Weights.initializer`."""
        place = self._place(name)
        if place.dtype != "F32":
            raise Unsupported(f"{name} is {place.dtype}: convert the checkpoint to float32 first")
        tensor = TensorProto(
            name=name,
            data_type=TensorProto.FLOAT,
            dims=place.shape,
            data_location=TensorProto.EXTERNAL,
        )
        entries = {"location": place.file.name, "offset": place.offset, "length": place.length}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
        return tensor

    def _place(self, name: str) -> Place:
        if name not in self._places:
            raise Unsupported(f"the checkpoint has no tensor {name}")
        return self._places[name]


def checkpoint_files(folder: Path) -> list[Path]:
    """The `.safetensors` files of a checkpoint, whole or in shards; raises Unsupported."""
    index = folder / INDEX
    if index.is_file():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    else:
        names = sorted(path.name for path in folder.glob("*.safetensors"))
        if len(names) > 1:
            raise Unsupported(f"{folder} has {len(names)} .safetensors files and no {INDEX}")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing or not names:
        wanted = ", ".join(missing) or "*.safetensors"
        raise Unsupported(f"{folder} lacks {wanted} (weights in pickles are not read)")
    return [folder / name for name in names]


def read_header(file: Path) -> dict[str, Place]:
    """Every tensor of a safetensors file, with its place in that file."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(HEADER_LENGTH_BYTES))
        header: dict[str, Any] = json.loads(stream.read(length))
    start = HEADER_LENGTH_BYTES + length
    return {
        name: Place(
            file,
            entry["dtype"],
            tuple(entry["shape"]),
            start + entry["data_offsets"][0],
            entry["data_offsets"][1] - entry["data_offsets"][0],
        )
        for name, entry in header.items()
        if name != "__metadata__"
    }


def as_float32(raw: bytes, dtype: str, name: str) -> np.ndarray:
    """The values of a tensor's bytes; bfloat16 and float16 are widened without loss."""
    if dtype == "F32":
        return np.frombuffer(raw, "<f4")
    if dtype == "F16":
        return np.frombuffer(raw, "<f2").astype(np.float32)
    if dtype == "BF16":
        # A bfloat16 is the upper half of a float32.
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    raise Unsupported(f"{name} is of type {dtype}: F32, F16 and BF16 are supported")
