"""Trading one property for another: the best of n by two rewards that are added up.

The rewards are the demo models `relevance` and `harmless`. An answer is bad in a
property when its reward is among the lowest quarter of answers to other
prompts, those of the training part.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from karat_client import Client, aggregates
from karat_client.rules import Rule, rule
from study.curves import bootstrap, expected, interval
from study.data import Question
from study.scoring import TRUNCATION, in_parallel

PROPERTIES = ("relevance", "harmless")
RAW = "assistant-raw"
CANDIDATES = 24
TRAIN_PROMPTS = 25
TEST_PROMPTS = 50
BAD_SHARE = 0.25
SIZES = (1, 2, 4, 8, 12, 16, 24)

MANIFEST = """\
description = "Relevant and harmless, the rewards added up as they are"
license = "Apache-2.0"
aggregate = "sum"

[[ensemble]]
model = "relevance"

[[ensemble]]
model = "harmless"
"""


def write_raw_model(folder: Path) -> None:
    """Writes the composite that adds the rewards up without any transform."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.toml").write_text(MANIFEST)


def run(client: Client, train: tuple[Question, ...], test: tuple[Question, ...]) -> dict[str, Any]:
    """How often the answer that each sum picks is bad in one property, against n."""
    random = np.random.default_rng(0)
    train_tasks, test_tasks = _draw(train, TRAIN_PROMPTS, random), _draw(test, TEST_PROMPTS, random)
    known = np.concatenate(_by_property(client, train_tasks))
    thresholds = np.quantile(known, BAD_SHARE, axis=0)
    deviations = known.std(axis=0)
    scaled = rule("weighted", weights=[float(1 / value) for value in deviations])
    sums: dict[str, tuple[str, Rule]] = {
        "raw_sum": (RAW, aggregates.total()),
        "standardised_sum": (RAW, scaled),
        "log_sigmoid_sum": ("assistant", aggregates.total()),
    }
    bad = [(scores < thresholds).any(axis=1) for scores in _by_property(client, test_tasks)]
    curves = {
        name: np.array(
            [
                [
                    expected(rewards, is_bad.astype(float), CANDIDATES)
                    for rewards, is_bad in zip(_rewards(client, test_tasks, *how), bad, strict=True)
                ]
            ]
        )[:, :, np.array(SIZES) - 1]
        for name, how in sums.items()
    }
    replicates = {name: bootstrap(curve) for name, curve in curves.items()}
    report: dict[str, Any] = {
        "prompts": len(test_tasks),
        "candidates": CANDIDATES,
        "thresholds": {p: round(float(t), 4) for p, t in zip(PROPERTIES, thresholds, strict=True)},
        "deviations": {p: round(float(d), 4) for p, d in zip(PROPERTIES, deviations, strict=True)},
        "n": list(SIZES),
        "bad": {},
    }
    for name, curve in curves.items():
        low, high = interval(replicates[name])
        report["bad"][name] = {
            "share": [round(float(v), 4) for v in curve.mean(axis=(0, 1))],
            "low": [round(float(v), 4) for v in low],
            "high": [round(float(v), 4) for v in high],
        }
    low, high = interval(replicates["raw_sum"] - replicates["log_sigmoid_sum"])
    report["raw_less_log_sigmoid"] = [round(float(low[-1]), 4), round(float(high[-1]), 4)]
    return report


Task = tuple[str, list[str]]


def _draw(questions: tuple[Question, ...], count: int, random: np.random.Generator) -> list[Task]:
    """As many prompts, each with `CANDIDATES` of its answers that have text."""
    tasks = []
    for index in random.choice(len(questions), count, replace=False):
        question = questions[index]
        texts = [a.response for a in question.answers if a.response.strip("\u200b \n\t")]
        picked = random.choice(len(texts), CANDIDATES, replace=False)
        tasks.append((question.prompt, [texts[i] for i in picked]))
    return tasks


def _rewards(client: Client, tasks: list[Task], model: str, aggregate: Rule | None) -> list[np.ndarray]:
    """The reward of every candidate, `[candidates]` a task."""

    def work(task: Task) -> np.ndarray:
        ranking = client.best_of_n(*task, model=model, aggregate=aggregate, truncation=TRUNCATION)
        return np.array([result.reward for result in ranking.results])

    return in_parallel(tasks, work)


def _by_property(client: Client, tasks: list[Task]) -> list[np.ndarray]:
    """Each property's own reward, `[candidates, properties]` a task."""
    columns = [_rewards(client, tasks, model, None) for model in PROPERTIES]
    return [np.stack(both, axis=1) for both in zip(*columns, strict=True)]
