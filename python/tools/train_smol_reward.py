"""Trains the heads of `models/decoders/smol-reward` on the last state of SmolLM2-135M-Instruct.

The states of as many pairs as asked for are computed first, in an order that
depends on the texts alone, and kept, so that a run that was stopped goes on.
How strongly the heads are shrunk is chosen by cross-validation within the
training pairs; the held-out pairs are looked at once, at the end. Writes
`value_head.safetensors`, `split.json`, `cross_validation.json` and `metrics.json`.

    make train-smol-reward DATA=test.jsonl.gz
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from karat_client import Client
from tools import bradley_terry, metrics
from tools.chat import ChatTokenizer
from tools.dialogues import Message, parse_transcript
from tools.packages import SMOLLM2
from tools.preference_data import (
    HELD_OUT_SHARE,
    Preference,
    content_sha256,
    hash_fraction,
    load_transcripts,
    read_lines,
)
from tools.server_process import ServerProcess
from tools.smollm2 import HEADS, convert, write_model
from tools.train_harmless import spread

MEMBERS = 5
FOLDS = 5
RIDGES = (100.0, 300.0, 1000.0, 3000.0, 10000.0, 30000.0)
# Longer conversations are left out, so that all are computed whole and in reasonable time.
MAX_TOKENS = 256
SAVE_EVERY = 20
STATES = "states"
MANIFEST = """\
head = {{ multi = {{ members = {width} }} }}
[graph]
checkpoint = "."
[text]
render = "chat_template"
max_tokens = {max_tokens}
"""


@dataclass(frozen=True)
class Conversations:
    """A preference pair as two conversations that part in their last answer."""

    preference: Preference
    chosen: list[Message]
    rejected: list[Message]


def load_conversations(data: Path, tokenizer: ChatTokenizer) -> list[Conversations]:
    """The pairs that fit, in the order of a hash of their first turn and row."""
    rows = read_lines(data)
    pairs = []
    for preference in load_transcripts(data):
        chosen, rejected = (parse_transcript(rows[preference.row][side]) for side in ("chosen", "rejected"))
        if max(map(tokenizer.length, (chosen, rejected))) <= MAX_TOKENS:
            pairs.append(Conversations(preference, chosen, rejected))
    return sorted(
        pairs,
        key=lambda pair: hash_fraction(f"order {pair.preference.group} {pair.preference.row}"),
    )


def write_states_model(cache: Path, build: Path) -> tuple[Path, int]:
    """A repository whose one model gives the state at the last token, and how many numbers that is.

    Its heads are the rows of the identity.
    """
    checkpoint, source = convert(cache, build)
    repository = build / "states"
    folder = repository / STATES
    folder.mkdir(parents=True, exist_ok=True)
    width = checkpoint.configuration["hidden_size"]
    save_file({"score.weight": np.eye(width, dtype=np.float32)}, folder / HEADS)
    write_model(checkpoint, source, folder)
    (folder / "model.toml").write_text(MANIFEST.format(width=width, max_tokens=MAX_TOKENS))
    return repository, width


def last_states(client: Client, pair: Conversations) -> np.ndarray:
    """The final states at both last tokens, `[2, hidden]`."""
    messages = [[asdict(turn) for turn in turns] for turns in (pair.chosen, pair.rejected)]
    scores = client.score(messages=messages, include=["members"])
    return np.array([result.ensemble.members for result in scores.results], np.float32)


def compute_states(client: Client, pairs: list[Conversations], cache: Path) -> np.ndarray:
    """The states of every pair, `[pairs, 2, hidden]`, going on where `cache` ends."""
    rows = [pair.preference.row for pair in pairs]
    known: dict[int, np.ndarray] = {}
    if cache.is_file():
        with np.load(cache) as kept:
            known = dict(zip(kept["rows"].tolist(), kept["states"], strict=True))
    for count, pair in enumerate(pairs, start=1):
        if pair.preference.row not in known:
            known[pair.preference.row] = last_states(client, pair)
            if count % SAVE_EVERY == 0 or count == len(pairs):
                cache.parent.mkdir(parents=True, exist_ok=True)
                np.savez(cache, rows=list(known), states=np.stack(list(known.values())))
                print(f"{count} of {len(pairs)} pairs", flush=True)
    return np.stack([known[row] for row in rows])


def cross_validate(differences: np.ndarray, folds: np.ndarray, ridge: float) -> dict[str, float]:
    """How a ridge does on each fold when fitted to the others."""
    margins = np.empty(len(differences))
    for fold in range(FOLDS):
        out = folds == fold
        margins[out] = differences[out] @ bradley_terry.fit(differences[~out], ridge)
    return {
        "ridge": ridge,
        "log_loss": round(bradley_terry.log_loss(margins), 4),
        "accuracy": round(float((margins > 0).mean()), 4),
    }


def train_heads(states: np.ndarray, ridge: float) -> dict[str, np.ndarray]:
    """Five heads, each on its own bootstrap sample; weight `[5, hidden]` and bias `[5]`.

    Each is centred to a mean of 0 over the training answers and brought to the
    heads' common (geometric mean) standard deviation, as those of `harmless`.
    """
    both = states.reshape(-1, states.shape[2]).astype(np.float64)
    scale = spread(both)
    differences = (states[:, 0] - states[:, 1]) / scale
    weights = np.stack(
        [
            bradley_terry.fit(differences, ridge, bradley_terry.bootstrap_counts(len(states), seed)) / scale
            for seed in range(MEMBERS)
        ]
    )
    units = (both @ weights.T).std(axis=0)
    weights *= (np.exp(np.log(units).mean()) / units)[:, None]
    bias = -(both @ weights.T).mean(axis=0)
    return {"score.weight": weights.astype(np.float32), "score.bias": bias.astype(np.float32)}


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Train the smol-reward heads.")
    parser.add_argument("--data", type=Path, required=True, help="hh-rlhf harmless-base test split")
    parser.add_argument("--pairs", type=int, help="use fewer than all the pairs that fit")
    parser.add_argument("--cache", type=Path, default=Path(".karat/packages"))
    parser.add_argument("--build", type=Path, default=Path(".karat/smollm2"))
    parser.add_argument("--folder", type=Path, default=Path("models/decoders/smol-reward"))
    parser.add_argument("--server", type=Path, default=Path("target/release/karat"))
    arguments = parser.parse_args()

    repository, width = write_states_model(arguments.cache, arguments.build)
    everything = load_conversations(arguments.data, ChatTokenizer(repository / STATES))
    pairs = everything[: arguments.pairs]
    print(f"{len(pairs)} of {len(everything)} pairs of at most {MAX_TOKENS} tokens, states of {width} numbers")
    with ServerProcess(arguments.server, repository) as server, Client(server.url, STATES) as client:
        states = compute_states(client, pairs, arguments.build / "smol-reward-states.npz")

    out = np.array([pair.preference.held_out for pair in pairs])
    training = [pair.preference for pair in pairs if not pair.preference.held_out]
    folds = np.array([int(hash_fraction(f"fold {p.group}") * FOLDS) for p in training])
    scale = spread(states[~out].reshape(-1, states.shape[2]))
    differences = (states[~out, 0] - states[~out, 1]) / scale
    trials = [cross_validate(differences, folds, ridge) for ridge in RIDGES]
    best = min(trials, key=lambda trial: trial["log_loss"])
    heads = train_heads(states[~out], best["ridge"])
    scores = states @ heads["score.weight"].T + heads["score.bias"]
    report = {"held_out": metrics.accuracies(scores[out, 0], scores[out, 1])}

    arguments.folder.mkdir(parents=True, exist_ok=True)
    save_file(heads, arguments.folder / HEADS)
    metrics.write_json(arguments.folder / "cross_validation.json", {"selected": best, "tried": trials})
    metrics.write_json(
        arguments.folder / "split.json",
        {
            "data": "anthropics/hh-rlhf, harmless-base, test.jsonl.gz",
            "uncompressed_sha256": content_sha256(arguments.data),
            "trunk": SMOLLM2.requirement,
            "rule": "held out where the first 8 bytes of SHA-256(first human turn), as a "
            f"big-endian fraction of 2^64, are below {HELD_OUT_SHARE}",
            "max_tokens": MAX_TOKENS,
            "fit": len(everything),
            "train_rows": [pair.preference.row for pair in pairs if not pair.preference.held_out],
            "held_out_rows": [pair.preference.row for pair in pairs if pair.preference.held_out],
        },
    )
    metrics.write_json(arguments.folder / "metrics.json", report)
    print(metrics.table(report))


if __name__ == "__main__":
    main()
