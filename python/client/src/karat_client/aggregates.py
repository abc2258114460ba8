"""How an ensemble's members become one reward, as a request says it.

Each function returns what the `aggregate` of a request holds. The formulas are those of Coste et al. 2023,
"Reward Model Ensembles Help Mitigate Overoptimization", unless a function names another source.
"""

from __future__ import annotations

from karat_client.rules import Rule, rule


def mean() -> Rule:
    """The mean of the members: `R = (1/k) sum_i R_i`."""
    return rule("mean")


def worst_case() -> Rule:
    """The lowest member: `R = min_i R_i`."""
    return rule("worst_case")


def uncertainty_weighted(weight: float) -> Rule:
    """The mean less `weight` times the members' population variance.

    `R = mean_i R_i - weight * (1/k) sum_i (R_i - mean)^2`, where `weight` is the paper's lambda, at least 0;
    the paper uses 0.5 for Best-of-N and 0.1 for PPO.
    """
    return rule("uncertainty_weighted", **{"lambda": weight})


def total() -> Rule:
    """The sum of the members: over log-sigmoid members a logical AND (Wang et al. 2024)."""
    return rule("sum")
