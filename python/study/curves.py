"""What picking the best of n by a reward does to the judgement that the reward imitates."""

from __future__ import annotations

import functools
import math

import numpy as np

REPLICATES = 2000
INTERVAL = (2.5, 97.5)


@functools.cache
def best_of_n_weights(candidates: int, most: int) -> np.ndarray:
    """`[most, candidates]`: how likely the best of n is the i-th candidate in ascending order.

    Row n-1 holds C(i-1, n-1) / C(N, n) for i = 1…N: the unbiased estimate of
    best-of-n from N candidates (Coste et al. 2023), which averages over every
    choice of n.
    """
    return np.array(
        [
            [math.comb(i - 1, n - 1) / math.comb(candidates, n) for i in range(1, candidates + 1)]
            for n in range(1, most + 1)
        ]
    )


def divergence(n: np.ndarray) -> np.ndarray:
    """The upper bound of best-of-n's KL divergence from the policy: ln n - (n-1)/n, in nats."""
    return np.log(n) - (n - 1) / n


def expected(rewards: np.ndarray, values: np.ndarray, most: int) -> np.ndarray:
    """For n = 1…most, the expected `values` of the answer with the highest of `rewards`.

    Equal rewards: the first one wins, so it comes last in ascending order.
    """
    ascending = np.lexsort((-np.arange(len(rewards)), rewards))
    return best_of_n_weights(len(rewards), most) @ values[ascending]


def bootstrap(curves: np.ndarray, replicates: int = REPLICATES) -> np.ndarray:
    """Means over seeds and prompts of resampled `curves` [seeds, prompts, …]: [replicates, …].

    Seeds and prompts are drawn with replacement, each on its own, because a
    prompt is hard for every seed and a seed is good on every prompt. The draws
    are the same in every call, so that differences of two results are paired.
    """
    random = np.random.default_rng(0)
    seeds, prompts = curves.shape[:2]
    means = np.empty((replicates, *curves.shape[2:]))
    for replicate in range(replicates):
        by_seed = np.bincount(random.integers(0, seeds, seeds), minlength=seeds) / seeds
        by_prompt = np.bincount(random.integers(0, prompts, prompts), minlength=prompts) / prompts
        means[replicate] = np.einsum("s,p,sp...->...", by_seed, by_prompt, curves)
    return means


def interval(replicates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % percentile interval of bootstrap replicates, along the first axis."""
    low, high = np.percentile(replicates, INTERVAL, axis=0)
    return low, high
