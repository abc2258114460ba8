"""Pairwise accuracy of an ensemble's rules, with its uncertainty."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

UNCERTAINTY_LAMBDA = 0.5
# The normal quantile of a two-sided 95 % interval.
Z_95 = 1.959964


def aggregate(members: np.ndarray) -> dict[str, np.ndarray]:
    """Each head's and each rule's score, `[texts]`, from `members` `[texts, heads]`.

    The uncertainty-weighted score subtracts lambda times the population variance.
    """
    mean = members.mean(axis=1)
    rules = {f"head {index}": members[:, index] for index in range(members.shape[1])}
    rules["mean"] = mean
    rules["worst case"] = members.min(axis=1)
    rules["uncertainty-weighted"] = mean - UNCERTAINTY_LAMBDA * members.var(axis=1)
    return rules


def wilson(hits: int, total: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a proportion."""
    share, square = hits / total, Z_95**2
    centre = (share + square / (2 * total)) / (1 + square / total)
    half = Z_95 * math.sqrt(share * (1 - share) / total + square / (4 * total**2))
    half /= 1 + square / total
    return centre - half, centre + half


def accuracies(chosen: np.ndarray, rejected: np.ndarray) -> dict[str, Any]:
    """How often each rule puts the chosen response strictly above the rejected one.

    Both arguments are `[pairs, heads]`.
    """
    total = len(chosen)
    report: dict[str, Any] = {"pairs": total}
    above, below = aggregate(chosen), aggregate(rejected)
    for rule in above:
        hits = int((above[rule] > below[rule]).sum())
        low, high = wilson(hits, total)
        report[rule] = {
            "accuracy": round(hits / total, 4),
            "interval": [round(low, 4), round(high, 4)],
        }
    return report


def table(report: dict[str, Any]) -> str:
    """Every part of `report` that `accuracies` made, as a Markdown table of percentages."""
    parts = {k: v for k, v in report.items() if isinstance(v, dict) and "pairs" in v}
    names = [f"{name.replace('_', ' ')} ({part['pairs']} pairs)" for name, part in parts.items()]
    lines = ["| rule | " + " | ".join(names) + " |", "|---" * (len(parts) + 1) + "|"]
    rules = [rule for rule in next(iter(parts.values())) if rule != "pairs"]
    for rule in rules:
        cells = [
            "{:.1f} ({:.1f}–{:.1f})".format(
                *(100 * value for value in (part[rule]["accuracy"], *part[rule]["interval"]))
            )
            for part in parts.values()
        ]
        lines.append(f"| {rule} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` to `path`, indented, with each innermost list or object on one line."""
    path.write_text(compact_json(value) + "\n")


def compact_json(value: Any) -> str:
    """JSON that is indented, but keeps each innermost list or object on one line."""
    return _compact(value, 0)


def _compact(value: Any, depth: int) -> str:
    flat = json.dumps(value)
    parts = list(value.values()) if isinstance(value, dict) else value
    nested = isinstance(value, (dict, list)) and any(isinstance(p, (dict, list)) for p in parts)
    if not nested and not (isinstance(value, dict) and depth == 0):
        return flat
    pad = " " * (2 * depth + 2)
    if isinstance(value, dict):
        body = [f"{pad}{json.dumps(k)}: {_compact(v, depth + 1)}" for k, v in value.items()]
        return "{\n" + ",\n".join(body) + "\n" + pad[2:] + "}"
    body = [f"{pad}{_compact(v, depth + 1)}" for v in parts]
    return "[\n" + ",\n".join(body) + "\n" + pad[2:] + "]"


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Print a metrics file as a Markdown table.")
    parser.add_argument("report", type=Path)
    print(table(json.loads(parser.parse_args().report.read_text())))


if __name__ == "__main__":
    main()
