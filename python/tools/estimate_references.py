"""Estimates the references of `models/assistant`, at which its scores are centred.

A Bradley-Terry score has an arbitrary zero. Before two models' scores are put
through log-sigmoid and added, each is centred at a reward that a good answer
reaches: the 85th percentile of its scores over real answers. Transforming and
Combining Rewards for Aligning Large Language Models (Wang et al., 2024) takes a
percentile per prompt; a server sees no samples of its prompt, so there is one
for all prompts here, over both answers of the training pairs of `harmless`.
Writes `references.json`; the values go into `model.toml` by hand.

    .venv/bin/python -m tools.estimate_references --data test.jsonl.gz
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx

from tools import features
from tools.dialogues import load_tokenizer
from tools.harmless import MAX_TOKENS
from tools.metrics import write_json
from tools.preference_data import content_sha256, load_transcripts

MODELS = ("relevance", "harmless")
QUANTILE = 0.85


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Estimate the references of `assistant`.")
    parser.add_argument("--data", type=Path, required=True, help="hh-rlhf harmless-base test split")
    parser.add_argument("--models", type=Path, default=Path("models"))
    arguments = parser.parse_args()

    report: dict[str, object] = {
        "data": "anthropics/hh-rlhf, harmless-base, test.jsonl.gz, training pairs",
        "uncompressed_sha256": content_sha256(arguments.data),
        "quantile": QUANTILE,
    }
    for name in MODELS:
        folder = arguments.models / name
        tokenizer = load_tokenizer(str(folder / "tokenizer.json"))
        training = [p for p in load_transcripts(arguments.data) if not p.held_out]
        training = features.that_fit(tokenizer, training, MAX_TOKENS)
        answers = [side for p in training for side in (p.chosen, p.rejected)]
        graph = onnx.load(folder / "model.onnx")
        scores = features.compute(graph, tokenizer, answers, MAX_TOKENS).mean(axis=1)
        report[name] = {
            "answers": len(answers),
            "reference": round(float(np.quantile(scores, QUANTILE)), 4),
            "mean": round(float(scores.mean()), 4),
            "standard_deviation": round(float(scores.std()), 4),
        }
        print(name, report[name], flush=True)
    write_json(arguments.models / "assistant" / "references.json", report)


if __name__ == "__main__":
    main()
