"""Puts the study's figures into `docs/evidence.md` and the README, or checks that they are there.

Only the standard library is used, so that the check runs anywhere. What stands
between `<!-- study:NAME -->` and `<!-- /study -->` comes from `results.json`.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

PAGES = (Path("docs/evidence.md"), Path("README.md"))
BLOCK = re.compile(r"(<!-- study:(?P<name>[a-z-]+) -->\n).*?(<!-- /study -->)", re.DOTALL)
RULES = {
    "single": "single head",
    "mean": "mean",
    "worst_case": "worst case",
    "uncertainty_weighted_0.1": "λ = 0.1",
    "uncertainty_weighted_0.2": "λ = 0.2",
    "uncertainty_weighted_0.5": "λ = 0.5",
    "uncertainty_weighted_1.0": "λ = 1",
    "uncertainty_weighted_2.0": "λ = 2",
}
SHORT = ("single", "mean", "worst_case", "uncertainty_weighted_0.5")


def settings(report: dict[str, Any]) -> list[dict[str, Any]]:
    """What was found of each setting, in the order of the tables."""
    return list(report["settings"]["by_setting"].values())


def head_of(setting: dict[str, Any]) -> str:
    """A setting's first three cells."""
    fitted = "tuned" if setting["tuned"] else "overfitted"
    return f"| {fitted} | {100 * setting['flipped']:.0f} % | {setting['pairs']} |"


def number(value: float) -> str:
    """Three digits, as the tables write them."""
    return f"{value:.3f}".replace("0.", ".", 1)


def with_interval(curve: dict[str, Any]) -> str:
    """The value at the largest n, and its interval."""
    gold, low, high = (curve[name][-1] for name in ("gold", "low", "high"))
    return f"{number(gold)} ({number(low)}–{number(high)})"


def headline(report: dict[str, Any]) -> str:
    """The four rules with their intervals, one line a setting."""
    lines = ["| heads | labels flipped | pairs a head | " + " | ".join(RULES[r] for r in SHORT) + " |"]
    lines.append("|---" * (3 + len(SHORT)) + "|")
    for setting in settings(report):
        cells = (with_interval(setting["rules"][rule]) for rule in SHORT)
        lines.append(f"{head_of(setting)} {' | '.join(cells)} |")
    return "\n".join(lines)


def sweep(report: dict[str, Any]) -> str:
    """Every λ, one line a setting; the best of each in bold."""
    rules = [rule for rule in RULES if rule not in ("single", "worst_case")]
    lines = ["| heads | labels flipped | pairs a head | " + " | ".join(RULES[r] for r in rules) + " |"]
    lines.append("|---" * (3 + len(rules)) + "|")
    for setting in settings(report):
        values = [setting["rules"][rule]["gold"][-1] for rule in rules]
        best = max(values)
        cells = (f"**{number(v)}**" if v == best else number(v) for v in values)
        lines.append(f"{head_of(setting)} {' | '.join(cells)} |")
    return "\n".join(lines)


def differences(report: dict[str, Any]) -> str:
    """How far the ensemble is ahead of a single head, and the conservative rules of the mean."""
    columns = (
        ("mean less single", "mean", "less_single"),
        ("worst case less mean", "worst_case", "less_mean"),
        ("λ = 0.5 less mean", "uncertainty_weighted_0.5", "less_mean"),
        ("λ = 0.5 less single", "uncertainty_weighted_0.5", "less_single"),
    )
    lines = ["| heads | labels flipped | pairs a head | " + " | ".join(c[0] for c in columns) + " |"]
    lines.append("|---" * (3 + len(columns)) + "|")
    for setting in settings(report):
        cells = []
        for _, rule, other in columns:
            value, low, high = setting["rules"][rule][other]
            sure = low > 0 or high < 0
            text = f"{value:+.3f} ({low:+.3f} … {high:+.3f})"
            cells.append(f"**{text}**" if sure else text)
        lines.append(f"{head_of(setting)} {' | '.join(cells)} |")
    return "\n".join(lines)


def accuracy(report: dict[str, Any]) -> str:
    """How often two answers are ordered as the judge does, and where each curve peaks."""
    lines = ["| heads | labels flipped | pairs a head | " + " | ".join(RULES[r] for r in SHORT)]
    lines[0] += " | peak of single | peak of mean | peak of worst case |"
    lines.append("|---" * (6 + len(SHORT)) + "|")
    for setting in settings(report):
        cells = [f"{100 * setting['accuracy'][rule]:.1f} %" for rule in SHORT]
        cells += [f"n = {setting['rules'][rule]['peak_n']}" for rule in SHORT[:3]]
        lines.append(f"{head_of(setting)} {' | '.join(cells)} |")
    return "\n".join(lines)


def farming(report: dict[str, Any]) -> str:
    """What padding with a correct step does to the reward, by transform."""
    found = report["farming"]
    names = {
        "raw": "raw sum",
        "clip": "clip",
        "delta": "delta",
        "clip_then_delta": "clip, then delta",
    }
    repeats = found["repeats"]
    lines = ["| | correct | " + " | ".join(f"faulty, {n} repeats" for n in repeats) + " |"]
    lines.append("|---" * (2 + len(repeats)) + "|")
    for name, label in names.items():
        result = found["transforms"][name]
        cells = " | ".join(f"{value:.2f}" for value in result["padded"])
        lines.append(f"| {label} | {result['correct']:.2f} | {cells} |")
    return "\n".join(lines)


def trading(report: dict[str, Any]) -> str:
    """How often the pick is bad in one property, by the way that rewards are added."""
    found = report["trading"]
    names = {
        "raw_sum": "raw sum",
        "standardised_sum": "standardised sum",
        "log_sigmoid_sum": "log-sigmoid sum",
    }
    lines = ["| bad in a property | " + " | ".join(f"n = {n}" for n in found["n"]) + " |"]
    lines.append("|---" * (1 + len(found["n"])) + "|")
    for name, label in names.items():
        curve = found["bad"][name]
        cells = [f"{100 * share:.0f} %" for share in curve["share"]]
        cells[-1] += f" ({100 * curve['low'][-1]:.0f}–{100 * curve['high'][-1]:.0f})"
        lines.append(f"| {label} | {' | '.join(cells)} |")
    low, high = (100 * value for value in report["trading"]["raw_less_log_sigmoid"])
    lines += [
        "",
        f"The raw sum less the log-sigmoid sum at the largest n: {low:.0f} to {high:.0f} points.",
    ]
    return "\n".join(lines)


def facts(report: dict[str, Any]) -> str:
    """The run in a list."""
    data, chosen = report["data"], report["cross_validation"]
    ridges = ", ".join(f"{trial['ridge']:.0f}" for trial in chosen.values())
    seconds = report["seconds"]
    parts = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items() if name != "all")
    return "\n".join(
        [
            f"- {report['karat']}; {report['heads']} heads an ensemble, {report['seeds']} seeds, "
            f"{len(report['settings']['by_setting'])} settings.",
            f"- {data['train_prompts']} training prompts ({data['train_answers']} answers), "
            f"{data['test_prompts']} held-out prompts ({data['test_answers']} answers, of which "
            f"{data['unscored_test_answers']} hold no visible text and are never chosen).",
            f"- Layer {report['layers'][0]} of the trunk; ridges of the tuned heads {ridges} in "
            f"the order of the table, {report['weak_ridge']:g} for the overfitted ones.",
            "- Largest difference between a served member and the trained head: "
            f"{report['largest_difference']:.1e} standard deviations.",
            f"- An answer at random: {number(settings(report)[0]['rules']['mean']['gold'][0])}; "
            f"the judge's own choice: {number(report['settings']['judge'])}.",
            f"- {seconds['all'] / 60:.0f} minutes on {report['cores']} cores ({parts}).",
        ]
    )


BLOCKS: dict[str, Callable[[dict[str, Any]], str]] = {
    "headline": headline,
    "sweep": sweep,
    "differences": differences,
    "accuracy": accuracy,
    "farming": farming,
    "trading": trading,
    "facts": facts,
}


def filled(page: str, report: dict[str, Any]) -> str:
    """The page with every block as the report has it."""
    return BLOCK.sub(lambda m: f"{m[1]}{BLOCKS[m['name']](report)}\n{m[3]}", page)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Write the study's figures into the pages.")
    parser.add_argument("--results", type=Path, default=Path("python/study/results.json"))
    parser.add_argument("--check", action="store_true", help="fail if a page is out of date")
    arguments = parser.parse_args()
    report = json.loads(arguments.results.read_text())
    for path in PAGES:
        page = path.read_text()
        wanted = filled(page, report)
        if arguments.check and page != wanted:
            raise SystemExit(f"{path} is out of date: run .venv/bin/python -m study.report")
        if not arguments.check:
            path.write_text(wanted)


if __name__ == "__main__":
    main()
