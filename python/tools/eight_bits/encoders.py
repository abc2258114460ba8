"""What an encoder in 8 bits makes of real answers."""

from __future__ import annotations

from pathlib import Path

import onnx

from tools.eight_bits.report import Report, open_session, time_ratio
from tools.eight_bits.sizes import Watched
from tools.half_precision import CANDIDATES, PROMPTS, parity, refuse_others, samples, scores

# What sizes are taken from, behind what is compared.
MEASURED = PROMPTS + CANDIDATES


def measure(graph: Watched, folder: Path, cache: Path) -> None:
    """Runs a graph on real pairs, which are none of those that are compared."""
    names = [entry.name for entry in graph.get_inputs()]
    for feed in samples(folder / "tokenizer.json", cache, MEASURED)[::CANDIDATES]:
        graph.run([], {name: feed[name] for name in names})


def compare(
    original: onnx.ModelProto, converted: onnx.ModelProto, folder: Path, cache: Path, tolerance: float
) -> Report:
    """Scores both graphs on real pairs, one by one; `tolerance` is in standard deviations of scores."""
    refuse_others(original, folder)
    feeds = samples(folder / "tokenizer.json", cache)
    expected = scores(original, feeds)
    report = parity(expected, scores(converted, feeds), tolerance * float(expected.std(axis=(0, 1)).min()))
    sessions = [open_session(model) for model in (original, converted)]
    names = [entry.name for entry in sessions[0].get_inputs()]

    def run(number: int) -> None:
        for feed in feeds:
            sessions[number].run(None, {name: feed[name] for name in names})

    return Report(report, time_ratio(run))
