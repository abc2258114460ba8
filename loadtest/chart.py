"""The results as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

from loadtest.targets import offline_optimum, ratio

NAMES = {
    "karat-1": "karat, 1 client",
    "karat-8": "karat, 8 clients",
    "karat-64": "karat, 64 clients",
    "karat-256": "karat, 256 clients",
    "karat-batches": "karat, 4 clients x 32",
    "fastapi-1": "FastAPI, no batches",
    "fastapi-8": "FastAPI, batches of 8",
    "fastapi-32": "FastAPI, batches of 32",
    "infinity": "Infinity",
}
KARAT, PEER, LINE = "#2a6f97", "#b0b7bd", "#444444"


def draw(results: dict[str, Any], path: Path) -> None:
    """Writes an SVG: throughput beside the optimum, goodput beside the offered load."""
    models = results["models"]
    settings: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "karat", "font.size": 9}
    with pyplot.rc_context(settings):
        figure, axes = pyplot.subplots(
            len(models), 2, figsize=(10, 3.4 * len(models)), squeeze=False, layout="constrained"
        )
        for (name, measured), (left, right) in zip(models.items(), axes, strict=True):
            _throughput(left, name, measured["throughput"])
            _goodput(right, name, measured)
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)


def _throughput(axis: Any, model: str, throughput: dict[str, Any]) -> None:
    optimum = offline_optimum(throughput)
    names = [name for name in NAMES if name in throughput]
    shares = [ratio(throughput, name, optimum) for name in names]
    colours = [KARAT if name.startswith("karat") else PEER for name in names]
    bars = axis.barh([NAMES[name] for name in names], shares, color=colours)
    axis.bar_label(bars, fmt="%.2f", padding=3)
    axis.axvline(1, color=LINE, linewidth=1, linestyle="--")
    axis.invert_yaxis()
    axis.set_xlim(0, 1.15 * max(1, *shares))
    axis.set_title(f"{model}: tokens/s, offline optimum = 1")


def _goodput(axis: Any, model: str, measured: dict[str, Any]) -> None:
    peak = measured["throughput"]["karat-64"]["tokens_per_second"]
    loads = [float(load) for load in measured["open"]]
    good = [report["good_tokens_per_second"] / peak for report in measured["open"].values()]
    axis.plot(loads, good, marker="o", color=KARAT)
    axis.plot([0, 1, max(loads)], [0, 1, 1], color=LINE, linewidth=1, linestyle="--")
    for load, share in zip(loads, good, strict=True):
        axis.annotate(f"{share:.2f}", (load, share), xytext=(0, -12), textcoords="offset points")
    axis.set_ylim(0, 1.1 * max(1, *good))
    axis.set_xlabel("offered load / capacity")
    axis.set_title(f"{model}: tokens/s in time / peak")
