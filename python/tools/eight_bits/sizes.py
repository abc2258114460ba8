"""How large a graph's values become on real texts, channel by channel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime

from tools.eight_bits.report import open_session


class Watched:
    """A session that gives what the graph's own does, and notes the largest size of each channel of some values."""

    def __init__(self, model: onnx.ModelProto, values: Iterable[str]) -> None:
        watched = onnx.ModelProto.FromString(model.SerializeToString())
        self._values = list(values)
        watched.graph.output.extend(onnx.ValueInfoProto(name=value) for value in self._values)
        self._session = open_session(watched)
        self.largest: dict[str, np.ndarray] = {}

    def run(self, outputs: Sequence[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        """As a session's."""
        given = self._session.run([*outputs, *self._values], feed)
        for value, numbers in zip(self._values, given[len(outputs) :], strict=True):
            sizes = np.abs(numbers).reshape(-1, numbers.shape[-1]).max(axis=0)
            self.largest[value] = np.maximum(self.largest.get(value, 0.0), sizes)
        return given[: len(outputs)]

    def get_inputs(self) -> list[onnxruntime.NodeArg]:
        """As a session's."""
        return self._session.get_inputs()

    def get_outputs(self) -> list[onnxruntime.NodeArg]:
        """The graph's own outputs."""
        return [output for output in self._session.get_outputs() if output.name not in self._values]

    def get_modelmeta(self) -> Any:
        """As a session's."""
        return self._session.get_modelmeta()
