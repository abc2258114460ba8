"""Measures `models/harmless` on pairs that no head was trained on.

The scores come from the graph that is served. Writes `metrics.json`; the
held-out pairs are those of `split.json`'s rule.

    .venv/bin/python -m tools.evaluate_harmless --data test.jsonl.gz --hhh hhh.jsonl
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import onnx
from tokenizers import Tokenizer

from tools import features, metrics
from tools.dialogues import load_tokenizer
from tools.harmless import MAX_TOKENS
from tools.preference_data import Preference, load_hhh, load_transcripts


def measure(graph: onnx.ModelProto, tokenizer: Tokenizer, preferences: list[Preference]) -> dict[str, Any]:
    """The accuracies of every head and rule on `preferences`."""
    pairs = [side for p in preferences for side in (p.chosen, p.rejected)]
    scores = features.compute(graph, tokenizer, pairs, MAX_TOKENS)
    return metrics.accuracies(scores[0::2], scores[1::2])


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Measure the harmless reward model.")
    parser.add_argument("--data", type=Path, required=True, help="hh-rlhf harmless-base test split")
    parser.add_argument("--hhh", type=Path, help="the pairs of BIG-bench hhh_alignment")
    parser.add_argument("--folder", type=Path, default=Path("models/harmless"))
    arguments = parser.parse_args()

    tokenizer = load_tokenizer(str(arguments.folder / "tokenizer.json"))
    graph = onnx.load(arguments.folder / "model.onnx")
    preferences = features.that_fit(tokenizer, load_transcripts(arguments.data), MAX_TOKENS)
    parts = {"held_out": [p for p in preferences if p.held_out]}
    if arguments.hhh:
        hhh = features.that_fit(tokenizer, load_hhh(arguments.hhh), MAX_TOKENS)
        for subset in sorted({p.subset for p in hhh}):
            parts[f"hhh_{subset}"] = [p for p in hhh if p.subset == subset]
        parts["hhh_all"] = hhh
    report = {name: measure(graph, tokenizer, part) for name, part in parts.items()}
    metrics.write_json(arguments.folder / "metrics.json", report)
    print(metrics.table(report))


if __name__ == "__main__":
    main()
