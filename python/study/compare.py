"""What each rule's choice is worth by the judge, with intervals."""

from __future__ import annotations

from typing import Any

import numpy as np

from study.curves import bootstrap, divergence, expected, interval
from study.data import Question
from study.ensembles import SETTINGS, Ensemble
from study.scoring import RULES, Rewards

MOST = 56
SIZES = np.array([1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 56])
SINGLE = "single"


def compare(
    ensembles: list[Ensemble], questions: tuple[Question, ...], scored: dict[str, list[Rewards]]
) -> dict[str, Any]:
    """For every setting and rule: gold preference at each of `SIZES`, and how rules differ."""
    gold = [np.array([answer.gold for answer in question.answers]) for question in questions]
    report = {}
    for setting in SETTINGS:
        of_setting = [scored[e.name] for e in ensembles if e.setting == setting]
        curves = {
            rule: np.array([[_gold(r, rule, g) for r, g in zip(one, gold, strict=True)] for one in of_setting])
            for rule in (SINGLE, *RULES)
        }
        replicates = {rule: bootstrap(values[:, :, SIZES - 1]) for rule, values in curves.items()}
        report[setting.name] = {
            "tuned": setting.tuned,
            "flipped": setting.flipped,
            "pairs": setting.pairs,
            "accuracy": _accuracies(of_setting, gold),
            "rules": {
                rule: {
                    **_curve(values, replicates[rule]),
                    **_differences(rule, curves, replicates),
                }
                for rule, values in curves.items()
            },
        }
    return {
        "n": SIZES.tolist(),
        "kl": [round(float(value), 4) for value in divergence(SIZES)],
        "judge": round(float(np.mean([values.max() for values in gold])), 4),
        "by_setting": report,
    }


def _gold(rewards: Rewards, rule: str, gold: np.ndarray) -> np.ndarray:
    """Expected gold of the best of 1…`MOST`; for a single head, the mean over the heads."""
    if rule == SINGLE:
        return np.mean([expected(head, gold, MOST) for head in rewards.members.T], axis=0)
    return expected(rewards.by_rule[rule], gold, MOST)


def _curve(values: np.ndarray, replicates: np.ndarray) -> dict[str, Any]:
    mean = values.mean(axis=(0, 1))
    low, high = interval(replicates)
    return {
        "gold": _rounded(mean[SIZES - 1]),
        "low": _rounded(low),
        "high": _rounded(high),
        "peak_n": int(mean.argmax()) + 1,
        "by_seed": _rounded(values[:, :, -1].mean(axis=1)),
    }


def _differences(rule: str, curves: dict[str, np.ndarray], replicates: dict[str, np.ndarray]) -> dict[str, Any]:
    """This rule's gold at the largest n less that of a single head and of the mean, paired."""
    found = {}
    for other in (SINGLE, "mean"):
        if rule != other:
            low, high = interval(replicates[rule][:, -1] - replicates[other][:, -1])
            difference = curves[rule][:, :, -1].mean() - curves[other][:, :, -1].mean()
            found[f"less_{other}"] = _rounded(np.array([difference, low, high]))
    return found


def _accuracies(of_setting: list[list[Rewards]], gold: list[np.ndarray]) -> dict[str, float]:
    """How often each rule orders two answers to a held-out prompt as the judge does."""
    found = {}
    for rule in (SINGLE, *RULES):
        shares = []
        for one in of_setting:
            for rewards, values in zip(one, gold, strict=True):
                columns = rewards.members.T if rule == SINGLE else [rewards.by_rule[rule]]
                shares += [_accuracy(column, values) for column in columns]
        found[rule] = round(float(np.mean(shares)), 4)
    return found


def _accuracy(rewards: np.ndarray, gold: np.ndarray) -> float:
    first, second = np.triu_indices(len(gold), 1)
    judged = np.flatnonzero(gold[first] != gold[second])
    better = gold[first[judged]] > gold[second[judged]]
    higher = rewards[first[judged]] > rewards[second[judged]]
    lower = rewards[first[judged]] < rewards[second[judged]]
    return float(np.where(better, higher, lower).mean())


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in values]
