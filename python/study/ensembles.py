"""Ensembles of Bradley-Terry heads, each head trained on preference pairs of its own."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass

import numpy as np

from study.data import Question
from tools import bradley_terry
from tools.train_harmless import spread

HEADS = 5
FLIPPED_SHARES = (0.0, 0.25)
PAIR_COUNTS = (300, 2000)
SEEDS = 5
FOLDS = 5
LAYER_SETS = ((3,), (4,), (6,))
RIDGES = (300.0, 1000.0, 3000.0)
# A penalty that hardly shrinks anything: heads that fit their pairs as closely
# as a large network would.
WEAK_RIDGE = 1.0


@dataclass(frozen=True, order=True)
class Setting:
    """How much a head gets to see, how much of it is wrong, and how closely it is fitted.

    `tuned` heads have the ridge that cross-validation chose; the others `WEAK_RIDGE`.
    """

    tuned: bool
    flipped: float
    pairs: int

    @property
    def name(self) -> str:
        """What results and models call it."""
        fitted = "tuned" if self.tuned else "overfitted"
        return f"{fitted}-flipped-{round(100 * self.flipped)}-pairs-{self.pairs}"


SETTINGS = tuple(Setting(*three) for three in itertools.product((True, False), FLIPPED_SHARES, PAIR_COUNTS))


@dataclass(frozen=True)
class Ensemble:
    """One training of `HEADS` heads; `weight` is `[width, HEADS]`.

    `means` and `deviations` are those of each head's score over all training
    answers, by which a member is standardised before members are aggregated.
    """

    setting: Setting
    seed: int
    weight: np.ndarray
    means: np.ndarray
    deviations: np.ndarray

    @property
    def name(self) -> str:
        """What the server calls it."""
        return f"{self.setting.name}-seed-{self.seed}"


@dataclass(frozen=True)
class Pool:
    """The training answers that the heads may see, as rows of one feature matrix.

    `rows[q]` are the rows of question `q`; `gold` holds each row's preference, and
    `scale` each feature's standard deviation.
    """

    features: np.ndarray
    scale: np.ndarray
    gold: np.ndarray
    rows: list[np.ndarray]

    def take(self, questions: np.ndarray) -> Pool:
        """The same answers, with only these questions to draw pairs from."""
        return Pool(self.features, self.scale, self.gold, [self.rows[q] for q in questions])


def pool(questions: tuple[Question, ...], kept: np.ndarray, features: np.ndarray) -> Pool:
    """Puts features of the `kept` answers, numbered through all questions, beside their gold."""
    gold = np.array([answer.gold for question in questions for answer in question.answers])
    ends = np.cumsum([len(question.answers) for question in questions])
    row_of = np.full(ends[-1], -1)
    row_of[kept] = np.arange(len(kept))
    parts = np.split(row_of, ends[:-1])
    rows = [part[part >= 0] for part in parts]
    return Pool(features, spread(features), gold[kept], [part for part in rows if len(part) > 1])


def draw_pairs(source: Pool, setting: Setting, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows of chosen and of rejected answers to one prompt, as the judge says, some flipped.

    Pairs that the judge rates equal are drawn again.
    """
    chosen: list[int] = []
    rejected: list[int] = []
    while len(chosen) < setting.pairs:
        first, second = random.choice(source.rows[random.integers(len(source.rows))], 2, replace=False)
        if source.gold[first] == source.gold[second]:
            continue
        better_first = bool(source.gold[first] > source.gold[second])
        if random.random() < setting.flipped:
            better_first = not better_first
        chosen.append(first if better_first else second)
        rejected.append(second if better_first else first)
    return np.array(chosen), np.array(rejected)


def fit_head(source: Pool, setting: Setting, ridge: float, random: np.random.Generator) -> np.ndarray:
    """One head `[width]` over features as they are; the ridge holds for standardised ones."""
    chosen, rejected = draw_pairs(source, setting, random)
    differences = (source.features[chosen] - source.features[rejected]) / source.scale
    few_features = differences.shape[1] < differences.shape[0]
    fit = bradley_terry.fit_few_features if few_features else bradley_terry.fit
    return fit(differences, ridge) / source.scale


def train(source: Pool, setting: Setting, ridge: float, seed: int) -> Ensemble:
    """Trains `HEADS` heads, each on its own draw of pairs."""
    streams = np.random.SeedSequence([seed, setting.pairs, round(100 * setting.flipped)]).spawn(HEADS)
    heads = [fit_head(source, setting, ridge, np.random.default_rng(stream)) for stream in streams]
    weight = np.stack(heads, axis=1)
    scores = source.features @ weight
    return Ensemble(setting, seed, weight, scores.mean(axis=0), scores.std(axis=0))


@dataclass(frozen=True)
class Trial:
    """One choice of layers and ridge, and how it does on prompts that it wasn't fitted to."""

    layers: tuple[int, ...]
    ridge: float
    log_loss: float
    accuracy: float


def cross_validate(source: Pool, setting: Setting, layers: tuple[int, ...], ridge: float) -> Trial:
    """Fits one head to all folds of the questions but one and tests it there, for every fold.

    Labels of the held-out pairs are flipped as often as those of the training
    pairs: who tunes on noisy labels has no others to tune on.
    """
    random = np.random.default_rng(0)
    fold = random.permutation(len(source.rows)) % FOLDS
    margins = []
    for out in range(FOLDS):
        weight = fit_head(source.take(np.flatnonzero(fold != out)), setting, ridge, random)
        test = dataclasses.replace(setting, pairs=1000)
        chosen, rejected = draw_pairs(source.take(np.flatnonzero(fold == out)), test, random)
        margins.append((source.features[chosen] - source.features[rejected]) @ weight)
    held_out = np.concatenate(margins)
    return Trial(layers, ridge, bradley_terry.log_loss(held_out), float((held_out > 0).mean()))
