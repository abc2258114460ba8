"""Every answer to the held-out prompts, scored and ranked by a karat server."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from karat_client import Client, ScoreResult, aggregates
from karat_client.options import Truncation
from karat_client.rules import Rule
from study.data import Question
from study.ensembles import Ensemble

LAMBDAS = (0.1, 0.2, 0.5, 1.0, 2.0)
RULES: dict[str, Rule] = {
    "mean": aggregates.mean(),
    "worst_case": aggregates.worst_case(),
    **{f"uncertainty_weighted_{value}": aggregates.uncertainty_weighted(value) for value in LAMBDAS},
}
CONNECTIONS = 4
TRUNCATION: Truncation = "response_end"

Result = TypeVar("Result")
Task = TypeVar("Task")


@dataclass(frozen=True)
class Rewards:
    """What karat says about one ensemble and one prompt's answers, in their order.

    An answer without visible text is not scored, because karat refuses it; it
    has the reward -inf by every rule, as nobody would choose it. `by_rule` maps
    each rule to `[answers]`; `members` is `[answers, heads]`, standardised.
    """

    by_rule: dict[str, np.ndarray]
    members: np.ndarray


def in_parallel(tasks: Iterable[Task], work: Callable[[Task], Result]) -> list[Result]:
    """Runs `work` over the tasks on a few connections; results in the tasks' order."""
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        return list(threads.map(work, tasks))


def _best_of_n(
    client: Client, model: str, question: Question, visible: np.ndarray, rule: Rule
) -> tuple[ScoreResult, ...]:
    return client.best_of_n(
        question.prompt,
        [question.answers[index].response for index in visible],
        model=model,
        aggregate=rule,
        truncation=TRUNCATION,
        include=["members"],
    ).results


def rewards(
    client: Client, ensemble: Ensemble, questions: tuple[Question, ...], visible: list[np.ndarray]
) -> list[Rewards]:
    """One `Rewards` a question; `visible` says which of its answers have text."""

    def work(task: tuple[int, str]) -> tuple[np.ndarray, np.ndarray]:
        index, rule = task
        question, scored = questions[index], visible[index]
        results = _best_of_n(client, ensemble.name, question, scored, RULES[rule])
        reward = np.full(len(question.answers), -np.inf)
        members = np.full((len(question.answers), ensemble.weight.shape[1]), -np.inf)
        reward[scored] = [result.reward for result in results]
        members[scored] = [result.ensemble.members for result in results]
        return reward, members

    tasks = list(itertools.product(range(len(questions)), RULES))
    replies = iter(in_parallel(tasks, work))
    collected = []
    for _ in questions:
        of_rule = {rule: next(replies) for rule in RULES}
        by_rule = {rule: reward for rule, (reward, _) in of_rule.items()}
        collected.append(Rewards(by_rule, of_rule["mean"][1]))
    return collected


def all_rewards(
    client: Client,
    ensembles: list[Ensemble],
    questions: tuple[Question, ...],
    visible: list[np.ndarray],
) -> dict[str, list[Rewards]]:
    """`rewards` of every ensemble by its name. Only the first one waits for forward passes."""
    scored = {}
    for ensemble in ensembles:
        started = time.monotonic()
        scored[ensemble.name] = rewards(client, ensemble, questions, visible)
        print(f"  {ensemble.name}: {time.monotonic() - started:.1f} s", flush=True)
    return scored
