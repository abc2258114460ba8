"""Trains the heads of `models/harmless`.

What the heads read and how strongly they are shrunk is chosen by
cross-validation within the training pairs; nothing here looks at the held-out
pairs. Writes `heads.safetensors`, `split.json` and `cross_validation.json`.

    make train-harmless DATA=test.jsonl.gz HHH=hhh_alignment.jsonl
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tools import bradley_terry, features
from tools.dialogues import load_tokenizer
from tools.harmless import MAX_TOKENS, Features, Heads, feature_graph
from tools.metrics import write_json
from tools.preference_data import (
    HELD_OUT_SHARE,
    Preference,
    content_sha256,
    hash_fraction,
    load_transcripts,
)

HEADS = 5
FOLDS = 5
TRUNK_LAYERS = 6
LAYER_SETS = ((3,), (4,), (5,), (6,), (3, 5), (3, 4, 5), (1, 3, 5), (1, 2, 3, 4, 5, 6))
RIDGES = (300.0, 1000.0, 3000.0, 10000.0)
SMALLEST_DEVIATION = 1e-6
EVERYTHING = Features(tuple(range(1, TRUNK_LAYERS + 1)), first_token=True)


@dataclass(frozen=True)
class Trial:
    """One set-up and how it does across the folds of the training pairs."""

    layers: tuple[int, ...]
    first_token: bool
    ridge: float
    log_loss: float
    accuracy: float


def columns(wanted: Features) -> np.ndarray:
    """Where the features of `wanted` stand among those of `EVERYTHING`."""
    block = EVERYTHING.width // (2 * len(EVERYTHING.layers))
    picked = []
    for layer in wanted.layers:
        start = EVERYTHING.layers.index(layer) * 2 * block
        picked.append(np.arange(start, start + block * (2 if wanted.first_token else 1)))
    return np.concatenate(picked)


def spread(responses: np.ndarray) -> np.ndarray:
    """Each feature's standard deviation; 1 where a feature never changes."""
    deviation = responses.std(axis=0, dtype=np.float64)
    return np.where(deviation > SMALLEST_DEVIATION, deviation, 1.0)


def cross_validate(differences: np.ndarray, folds: np.ndarray, wanted: Features, ridge: float) -> Trial:
    """Fits on all folds but one and tests on that one, for every fold."""
    margins = np.empty(len(differences))
    for fold in range(FOLDS):
        out = folds == fold
        margins[out] = differences[out] @ bradley_terry.fit(differences[~out], ridge)
    loss, accuracy = bradley_terry.log_loss(margins), float((margins > 0).mean())
    return Trial(wanted.layers, wanted.first_token, ridge, loss, accuracy)


def train_heads(chosen: np.ndarray, rejected: np.ndarray, wanted: Features, ridge: float) -> Heads:
    """Fits each head to its own bootstrap sample of the training pairs.

    Heads are centred to a mean score of 0 over all training responses and
    brought to their common (geometric mean) standard deviation, so that a
    member differs from another in its opinion, not in its units. Both go into
    weight and bias.
    """
    both = np.concatenate([chosen, rejected]).astype(np.float64)
    scale = spread(both)
    differences = (chosen - rejected) / scale
    weights = np.stack(
        [
            bradley_terry.fit(differences, ridge, bradley_terry.bootstrap_counts(len(chosen), seed)) / scale
            for seed in range(HEADS)
        ],
        axis=1,
    )
    units = (both @ weights).std(axis=0)
    weights *= np.exp(np.log(units).mean()) / units
    bias = -(both @ weights).mean(axis=0)
    return Heads(wanted, weights.astype(np.float32), bias.astype(np.float32))


def select(train: list[Preference], chosen: np.ndarray, rejected: np.ndarray) -> list[Trial]:
    """Every set-up's cross-validation, the lowest log-loss first."""
    folds = np.array([int(hash_fraction(f"fold {p.group}") * FOLDS) for p in train])
    trials = []
    for layers, first_token in itertools.product(LAYER_SETS, (False, True)):
        wanted = Features(layers, first_token)
        at = columns(wanted)
        scale = spread(np.concatenate([chosen[:, at], rejected[:, at]]))
        differences = (chosen[:, at] - rejected[:, at]) / scale
        for ridge in RIDGES:
            trials.append(cross_validate(differences, folds, wanted, ridge))
        best = min(trials[-len(RIDGES) :], key=lambda trial: trial.log_loss)
        print(
            f"layers {list(layers)}{' and [CLS]' if first_token else ''}: ridge {best.ridge:.0f}, "
            f"log-loss {best.log_loss:.4f}, accuracy {best.accuracy:.3f}",
            flush=True,
        )
    return sorted(trials, key=lambda trial: trial.log_loss)


def split_record(path: Path, preferences: list[Preference]) -> dict[str, object]:
    """What it takes to repeat the split, and to see that it was repeated."""
    return {
        "data": "anthropics/hh-rlhf, harmless-base, test.jsonl.gz",
        "uncompressed_sha256": content_sha256(path),
        "rule": "held out where the first 8 bytes of SHA-256(first human turn), as a big-endian "
        f"fraction of 2^64, are below {HELD_OUT_SHARE}",
        "pairs": len(preferences),
        "train": sum(not preference.held_out for preference in preferences),
        "held_out": sum(preference.held_out for preference in preferences),
        "held_out_rows": [p.row for p in preferences if p.held_out],
    }


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Train the harmless heads.")
    parser.add_argument("--data", type=Path, required=True, help="hh-rlhf harmless-base test split")
    parser.add_argument("--cache", type=Path, default=Path(".karat/packages"))
    parser.add_argument("--folder", type=Path, default=Path("models/harmless"))
    arguments = parser.parse_args()

    tokenizer = load_tokenizer(str(arguments.folder / "tokenizer.json"))
    preferences = features.that_fit(tokenizer, load_transcripts(arguments.data), MAX_TOKENS)
    training = [p for p in preferences if not p.held_out]
    print(f"{len(training)} of {len(preferences)} pairs are for training")
    pairs = [side for p in training for side in (p.chosen, p.rejected)]
    graph = feature_graph(arguments.cache, EVERYTHING)
    values = features.compute(graph, tokenizer, pairs, MAX_TOKENS)
    chosen, rejected = values[0::2], values[1::2]

    trials = select(training, chosen, rejected)
    wanted = Features(trials[0].layers, trials[0].first_token)
    at = columns(wanted)
    heads = train_heads(chosen[:, at], rejected[:, at], wanted, trials[0].ridge)
    heads.save(arguments.folder / "heads.safetensors")

    report = {
        "selected": asdict(trials[0]),
        "best_of": len(trials),
        "best": [asdict(trial) for trial in trials[:10]],
    }
    write_json(arguments.folder / "cross_validation.json", report)
    write_json(arguments.folder / "split.json", split_record(arguments.data, preferences))


if __name__ == "__main__":
    main()
