"""What `study.watch` found, as tables of `docs/watch.md` and as plots."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from study.plot import save

PAGE = Path("docs/watch.md")
RESULTS = Path("python/study/watch.json")
BEGIN, END = "<!-- watch:results -->", "<!-- /watch -->"


def wilson(hits: int, trials: int) -> str:
    """A share with its 95 % interval (Wilson 1927), in per cent."""
    if not trials:
        return "–"
    z = 1.959964
    share = hits / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2)) / (1 + z * z / trials)
    return f"{100 * share:.0f} % ({100 * max(0.0, centre - half):.0f}–{100 * min(1.0, centre + half):.0f})"


def in_time(run: dict[str, Any], signal: str) -> bool:
    """Whether the signal fired before the gold had fallen."""
    fired = run["fired"].get(signal)
    return fired is not None and run["fell"] is not None and fired < run["fell"]


def table(runs: list[dict[str, Any]]) -> Iterable[str]:
    """A line for each signal: in time on runs that over-optimise, and false alarms on those that don't."""
    fell = [run for run in runs if run["fell"] is not None]
    overfitted = [run for run in fell if not run["tuned"]]
    sound = [run for run in runs if run["fell"] is None]
    with_overfitted = f"({len(overfitted)} of them with overfitted heads)"
    yield f"{len(runs)} runs, of which {len(fell)} over-optimise {with_overfitted} and {len(sound)} don't."
    yield ""
    in_time_columns = "in time, all that over-optimise | in time, overfitted heads"
    yield f"| signal | {in_time_columns} | false alarms | steps before the fall (median) |"
    yield "|---|---|---|---|---|"
    for signal in runs[0]["fired"]:
        ahead = [run["fell"] - run["fired"][signal] for run in fell if in_time(run, signal)]
        false = sum(run["fired"].get(signal) is not None for run in sound)
        cells = [
            f"`{signal}`",
            wilson(len(ahead), len(fell)),
            wilson(sum(in_time(run, signal) for run in overfitted), len(overfitted)),
            wilson(false, len(sound)),
            f"{np.median(ahead):.0f}" if ahead else "–",
        ]
        yield "| " + " | ".join(cells) + " |"


def plot(runs: list[dict[str, Any]], path: Path) -> None:
    """Gold by step, a panel for each pressure and reward; a cross where a second judge's signal fired first."""
    kinds = sorted({(run["pressure"], run["reward"]) for run in runs})
    figure, panels = plt.subplots(1, len(kinds), figsize=(4 * len(kinds), 3.4), sharey=True, squeeze=False)
    for panel, (pressure, reward) in zip(panels.flat, kinds, strict=True):
        for run in runs:
            if (run["pressure"], run["reward"]) != (pressure, reward):
                continue
            colour = "#1f77b4" if run["tuned"] else "#d62728"
            panel.plot(run["gold"], color=colour, alpha=0.4, linewidth=0.8)
            fired = run["fired"].get("judge_parts")
            if fired is not None:
                panel.plot(fired, run["gold"][fired], "x", color=colour)
        panel.set_title(f"{pressure.replace('_', ' ')}, {reward}")
        panel.set_xlabel("step")
        panel.grid(alpha=0.3)
    panels[0, 0].set_ylabel("judge's preference")
    save(figure, path)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Write the tables and plots of docs/watch.md.")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    runs = json.loads(arguments.results.read_text())["runs"]
    page = PAGE.read_text()
    head, rest = page.split(BEGIN)
    _, tail = rest.split(END)
    PAGE.write_text(head + BEGIN + "\n" + "\n".join(table(runs)) + "\n" + END + tail)
    folder = PAGE.parent / "watch"
    folder.mkdir(exist_ok=True)
    plot(runs, folder / "gold.svg")


if __name__ == "__main__":
    main()
