"""Linear Bradley-Terry models, fitted exactly.

A reward r(x) = w·x explains a preference by P(chosen over rejected) =
sigmoid(r(chosen) - r(rejected)) (Bradley and Terry, 1952). With features that
do not change, the penalised negative log-likelihood is convex and a few Newton
steps reach its minimum.
"""

from __future__ import annotations

import numpy as np

NEWTON_STEPS = 6
# Below this curvature a pair is so well explained that its step is not trusted.
SMALLEST_CURVATURE = 1e-6


def fit(differences: np.ndarray, ridge: float, counts: np.ndarray | None = None) -> np.ndarray:
    """The w that minimises sum_i counts_i log(1 + exp(-w·d_i)) + ridge/2 |w|².

    `differences` is `[pairs, features]`, chosen minus rejected; `counts` says
    how often each pair is in the sample (default once). Returns `[features]`.

    The Newton system is solved in the space of the pairs, which are fewer than
    the features of several layers.
    """
    used = np.arange(len(differences)) if counts is None else np.flatnonzero(counts)
    sample = differences[used].astype(np.float64)
    weight = np.ones(len(used)) if counts is None else counts[used].astype(np.float64)
    kernel = sample @ sample.T
    dual: np.ndarray = np.zeros(len(used))
    for _ in range(NEWTON_STEPS):
        margin = kernel @ dual
        wrong = 0.5 * (1.0 - np.tanh(margin / 2.0))
        curvature = np.maximum(weight * wrong * (1.0 - wrong), SMALLEST_CURVATURE)
        target = margin + weight * wrong / curvature
        dual = np.linalg.solve(kernel + np.diag(ridge / curvature), target)
    return sample.T @ dual


def fit_few_features(differences: np.ndarray, ridge: float) -> np.ndarray:
    """As `fit`, solved in the space of the features, for fewer of them than pairs."""
    sample = differences.astype(np.float64)
    weight: np.ndarray = np.zeros(sample.shape[1])
    for _ in range(NEWTON_STEPS):
        wrong = 0.5 * (1.0 - np.tanh(sample @ weight / 2.0))
        curvature = np.maximum(wrong * (1.0 - wrong), SMALLEST_CURVATURE)
        hessian = sample.T @ (sample * curvature[:, None])
        hessian[np.diag_indices_from(hessian)] += ridge
        weight += np.linalg.solve(hessian, sample.T @ wrong - ridge * weight)
    return weight


def log_loss(margins: np.ndarray) -> float:
    """Mean negative log-likelihood of pairs with `margins` r(chosen) - r(rejected)."""
    return float(np.logaddexp(0.0, -margins).mean())


def bootstrap_counts(pairs: int, seed: int) -> np.ndarray:
    """How often each of `pairs` is drawn when as many are drawn with replacement."""
    draws = np.random.default_rng(seed).integers(0, pairs, pairs)
    return np.bincount(draws, minlength=pairs)
