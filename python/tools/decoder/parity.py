"""Compares an exported graph with the numpy implementation, and records by how much they differ."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tools.decoder.config import DecoderConfig, Unsupported
from tools.decoder.reference import Reference, log_softmax
from tools.decoder.session import MASKED, PrefixSession, causal_bias
from tools.decoder.weights import Weights
from tools.metrics import write_json

# Allowed of any output, and of its largest absolute value where that is more.
ABSOLUTE, RELATIVE = 1e-4, 1e-5


@dataclass(frozen=True)
class Comparison:
    """By how much one output differs, each way of computing it, over all texts."""

    output: str
    differences: dict[str, float]
    largest_value: float

    @property
    def allowed(self) -> float:
        """The largest difference that float32 explains."""
        return max(ABSOLUTE, RELATIVE * self.largest_value)

    @property
    def passes(self) -> bool:
        """Whether every way stays within that; a NaN doesn't."""
        return all(difference <= self.allowed for difference in self.differences.values())


def compare(
    config: DecoderConfig,
    weights: Weights,
    graph: Path,
    outputs: tuple[str, ...],
    texts: list[list[int]],
) -> list[Comparison]:
    """Every text whole, continued from a prefix, and beside another text in one row.

    `logits` are compared as log-probabilities, which is how they are used.
    """
    session, reference = PrefixSession(graph), Reference(config, weights)
    wanted = [reference.hidden(ids) for ids in texts]
    comparisons = []
    for output in outputs:
        expected = [_like(output, reference.read(output, state)) for state in wanted]
        ways = {"whole": _whole, "continued": _continued, "packed": _packed}
        differences = {
            name: max(
                float(np.abs(_like(output, way(session, output, ids)) - values).max())
                for ids, values in zip(texts, expected, strict=True)
            )
            for name, way in ways.items()
        }
        largest = max(float(np.abs(values).max()) for values in expected)
        comparisons.append(Comparison(output, differences, largest))
    return comparisons


def record(comparisons: list[Comparison], texts: list[list[int]], path: Path) -> None:
    """Writes what was compared to `path`; raises Unsupported where something is off."""
    report: dict[str, Any] = {
        "against": "python/tools/decoder/reference.py: numpy, float64, whole texts",
        "tokens": [len(ids) for ids in texts],
    }
    for item in comparisons:
        report[item.output] = {
            "largest_value": round(item.largest_value, 4),
            "allowed": float(f"{item.allowed:.2e}"),
            **{name: float(f"{value:.2e}") for name, value in item.differences.items()},
        }
    write_json(path, report)
    wrong = [item.output for item in comparisons if not item.passes]
    if wrong:
        raise Unsupported(f"{', '.join(wrong)} differ from the reference by more than float32: {path}")


def _like(output: str, values: np.ndarray) -> np.ndarray:
    return log_softmax(values.astype(np.float64)) if output == "logits" else values


def _whole(session: PrefixSession, output: str, ids: list[int]) -> np.ndarray:
    return session.run(output, ids, list(range(len(ids))))[0]


def _continued(session: PrefixSession, output: str, ids: list[int]) -> np.ndarray:
    """The first half is read on its own, the rest on its keys and values."""
    half = len(ids) // 2
    first, past = session.run(output, ids[:half], list(range(half)))
    rest, _ = session.run(output, ids[half:], list(range(len(ids) - half)), past)
    return np.concatenate([first, rest])


def _packed(session: PrefixSession, output: str, ids: list[int]) -> np.ndarray:
    """The text behind its own reverse in one row, neither seeing the other."""
    length = len(ids)
    bias = np.full((1, 1, 2 * length, 2 * length), MASKED, np.float32)
    for start in (0, length):
        bias[..., start : start + length, start : start + length] = causal_bias(length, 0)
    positions = [*range(length), *range(length)]
    read = list(range(length, 2 * length))
    return session.run(output, [*reversed(ids), *ids], read, positions=positions, bias=bias)[0]
