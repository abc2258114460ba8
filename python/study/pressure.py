"""Training runs that press on a reward: what a policy would send to the server, step by step.

Answers are never written anew: a policy is a distribution over the answers that the data holds for a prompt. It begins
as a mixture of the better language models and moves towards what the reward pays for, in one of two ways:

- best of n: at each step the policy's answer is the best of n draws from the beginning, n rising from 1 to 56;
- policy gradient: a logit for each answer of each prompt, moved by REINFORCE with the group's mean as its baseline.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

STEPS = 30
PROMPTS_A_STEP = 48
ANSWERS_A_PROMPT = 4
LARGEST_N = 56
# How strongly the beginning prefers the models whose answers to training prompts the judge liked.
BEGINNING = 4.0
LEARNING_RATE = 1.5


@dataclass(frozen=True)
class Prompt:
    """What a run knows of one prompt: rewards and gold of its visible answers, and how likely each is at first."""

    rewards: np.ndarray
    gold: np.ndarray
    beginning: np.ndarray


@dataclass(frozen=True)
class Step:
    """What the policy samples at a step, as (prompt, answer) pairs, and the mean gold that it earns."""

    samples: list[tuple[int, int]]
    gold: float


def best_of_n(prompts: list[Prompt], random: np.random.Generator) -> Iterator[Step]:
    """Steps of a policy that takes the best of n, n rising geometrically."""
    for n in np.geomspace(1, LARGEST_N, STEPS).round().astype(int):
        policies = [_best_of(prompt, int(n)) for prompt in prompts]
        yield _step(prompts, policies, random)


def _best_of(prompt: Prompt, n: int) -> np.ndarray:
    """The distribution of the best of n independent draws from the beginning."""
    order = np.argsort(prompt.rewards, kind="stable")
    below = np.cumsum(prompt.beginning[order])
    chance = np.diff(np.concatenate([[0.0], below]) ** n)
    policy = np.empty_like(chance)
    policy[order] = np.clip(chance, 0.0, None)
    return policy / policy.sum()


def policy_gradient(prompts: list[Prompt], random: np.random.Generator) -> Iterator[Step]:
    """Steps of a policy that learns from the rewards of its own samples."""
    logits = [np.log(prompt.beginning) for prompt in prompts]
    scale = float(np.std(np.concatenate([prompt.rewards for prompt in prompts])))
    for _ in range(STEPS):
        policies = [_softmax(one) for one in logits]
        yield _step(prompts, policies, random)
        for prompt, one, policy in zip(prompts, logits, policies, strict=True):
            drawn = random.choice(len(policy), 8, p=policy)
            advantages = (prompt.rewards[drawn] - prompt.rewards[drawn].mean()) / scale
            for answer, advantage in zip(drawn, advantages, strict=True):
                gradient = -policy
                gradient[answer] += 1.0
                one += LEARNING_RATE / len(drawn) * advantage * gradient


def _step(prompts: list[Prompt], policies: list[np.ndarray], random: np.random.Generator) -> Step:
    chosen = random.choice(len(prompts), min(PROMPTS_A_STEP, len(prompts)), replace=False)
    samples = [
        (int(place), int(answer))
        for place in chosen
        for answer in random.choice(len(policies[place]), ANSWERS_A_PROMPT, p=policies[place])
    ]
    earned = [float(policy @ prompt.gold) for policy, prompt in zip(policies, prompts, strict=True)]
    return Step(samples, float(np.mean(earned)))


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max())
    return shifted / shifted.sum()


PRESSURES = {"best_of_n": best_of_n, "policy_gradient": policy_gradient}


def fall(gold: list[float], share: float = 0.1) -> int | None:
    """The first step at which the gold has fallen by that share from its best so far; None where it never has."""
    best = -np.inf
    for step, value in enumerate(gold):
        best = max(best, value)
        if value < (1 - share) * best:
            return step
    return None
