"""Draws the study's figures from `results.json`, as SVG for the documentation."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

# Text stays text, and the same figures give the same file.
plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "karat", "font.size": 9})

RULES = {
    "single": ("single head (mean of five)", "#7f7f7f", "-"),
    "mean": ("mean", "#1f77b4", "-"),
    "worst_case": ("worst case", "#d62728", "-"),
    "uncertainty_weighted_0.5": ("uncertainty-weighted, λ = 0.5", "#2ca02c", "-"),
}
SWEEP = ["uncertainty_weighted_" + value for value in ("0.1", "0.2", "0.5", "1.0", "2.0")]
TRANSFORMS = {
    "raw": ("raw sum", "#7f7f7f"),
    "clip": ("clip", "#ff7f0e"),
    "delta": ("delta", "#1f77b4"),
    "clip_then_delta": ("clip, then delta", "#2ca02c"),
}
SUMS = {
    "raw_sum": ("sum of raw rewards", "#7f7f7f"),
    "standardised_sum": ("sum of standardised rewards", "#1f77b4"),
    "log_sigmoid_sum": ("sum of log-sigmoids (assistant)", "#2ca02c"),
}


def title(setting: dict[str, Any]) -> str:
    """What a panel shows, in words."""
    fitted = "tuned" if setting["tuned"] else "overfitted"
    return f"{fitted}: {setting['pairs']} pairs, {100 * setting['flipped']:.0f} % flipped"


def save(figure: Any, path: Path) -> None:
    """Writes an SVG without anything that changes from run to run."""
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    plt.close(figure)


def curves(report: dict[str, Any], over: str, path: Path) -> None:
    """Gold preference against n or KL, one panel a setting."""
    settings = report["settings"]
    horizontal = settings[over]
    rows = -(-len(settings["by_setting"]) // 4)
    figure, panels = plt.subplots(rows, 4, figsize=(14, 0.4 + 3 * rows), sharex=True, sharey=True, squeeze=False)
    for panel, setting in zip(panels.flat, settings["by_setting"].values(), strict=True):
        for rule, (label, colour, style) in RULES.items():
            curve = setting["rules"][rule]
            panel.plot(horizontal, curve["gold"], style, color=colour, label=label)
            panel.fill_between(horizontal, curve["low"], curve["high"], color=colour, alpha=0.1, linewidth=0)
        panel.set_title(title(setting))
        panel.grid(alpha=0.3)
        if over == "n":
            panel.set_xscale("log", base=2)
    for panel in panels[-1]:
        panel.set_xlabel("n" if over == "n" else "KL divergence (nats)")
    for panel in panels[:, 0]:
        panel.set_ylabel("judge's preference for the best of n")
    panels[0, 0].legend(fontsize=7)
    save(figure, path)


def sweep(report: dict[str, Any], path: Path) -> None:
    """What λ does at the largest n, as the difference to the mean."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True)
    settings = list(report["settings"]["by_setting"].values())
    for panel, tuned in zip(panels, (True, False), strict=True):
        for setting in (one for one in settings if one["tuned"] == tuned):
            points = [setting["rules"][rule]["less_mean"] for rule in SWEEP]
            values = [0.0] + [point[0] for point in points]
            label = f"{setting['pairs']} pairs, {100 * setting['flipped']:.0f} % flipped"
            (line,) = panel.plot([0, 0.1, 0.2, 0.5, 1, 2], values, "o-", label=label)
            low, high = ([0.0] + [point[side] for point in points] for side in (1, 2))
            panel.fill_between([0, 0.1, 0.2, 0.5, 1, 2], low, high, color=line.get_color(), alpha=0.1, linewidth=0)
        panel.axhline(0, color="black", linewidth=0.6)
        panel.set_title("tuned heads" if tuned else "overfitted heads")
        panel.set_xlabel("λ")
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7)
    panels[0].set_ylabel("preference less that of the mean, n = 56")
    save(figure, path)


def farming(report: dict[str, Any], path: Path) -> None:
    """The reward of padded faulty solutions, less that of the correct ones."""
    found = report["farming"]
    figure, panel = plt.subplots(figsize=(6, 3.6))
    for name, (label, colour) in TRANSFORMS.items():
        result = found["transforms"][name]
        gained = [value - result["correct"] for value in result["padded"]]
        panel.plot(found["repeats"], gained, "o-", color=colour, label=label)
    panel.axhline(0, color="black", linewidth=0.6)
    panel.set_yscale("symlog", linthresh=1)
    panel.set_xlabel("repeats of a correct step")
    panel.set_ylabel("padded faulty less correct solution")
    panel.grid(alpha=0.3)
    panel.legend()
    save(figure, path)


def trading(report: dict[str, Any], path: Path) -> None:
    """How often the chosen answer is bad in one property, against n."""
    found = report["trading"]
    figure, panel = plt.subplots(figsize=(6, 3.6))
    for name, (label, colour) in SUMS.items():
        curve = found["bad"][name]
        panel.plot(found["n"], curve["share"], "o-", color=colour, label=label)
        panel.fill_between(found["n"], curve["low"], curve["high"], color=colour, alpha=0.1, linewidth=0)
    panel.set_xlabel("n")
    panel.set_ylabel("share bad in a property")
    panel.set_ylim(bottom=0)
    panel.grid(alpha=0.3)
    panel.legend()
    save(figure, path)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Draw the study's figures.")
    parser.add_argument("--results", type=Path, default=Path("python/study/results.json"))
    parser.add_argument("--output", type=Path, default=Path("docs/evidence"))
    arguments = parser.parse_args()
    report = json.loads(arguments.results.read_text())
    arguments.output.mkdir(parents=True, exist_ok=True)
    curves(report, "n", arguments.output / "best-of-n.svg")
    curves(report, "kl", arguments.output / "kl.svg")
    sweep(report, arguments.output / "lambda.svg")
    farming(report, arguments.output / "farming.svg")
    trading(report, arguments.output / "trading.svg")


if __name__ == "__main__":
    main()
