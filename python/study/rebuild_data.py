"""Rebuilds the study's data from a checkout of the public repository tatsu-lab/alpaca_eval.

    git clone https://github.com/tatsu-lab/alpaca_eval
    python -m study.rebuild_data --checkout alpaca_eval --output best-of-n.jsonl.gz

For each model of `data_split.json` it reads the published outputs and what the
judge `weighted_alpaca_eval_gpt4_turbo` said about them. A judge's preference of
1…2 is the probability that the model's output beats the reference, plus 1.
The data is licensed CC BY-NC 4.0.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

from tools.preference_data import content_sha256

JUDGE = "weighted_alpaca_eval_gpt4_turbo"
SPLIT = Path(__file__).with_name("data_split.json")
# The file that the figures in docs/evidence.md come from.
KNOWN_SHA256 = "b42434390ec7f9a3577ddc8e68317c570afbf4612db54cbd4e1431c4da4dca82"


def digest(prompt: str) -> str:
    """How `data_split.json` names a prompt."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


def judged(results: Path, model: str) -> dict[str, dict[str, Any]]:
    """The model's answers by their prompt, each with the judge's preference."""
    annotations = json.loads((results / model / JUDGE / "annotations.json").read_text())
    return {
        row["instruction"]: {
            "model": model,
            "response": row["output_2"],
            "gold": round(row["preference"] - 1, 5),
        }
        for row in annotations
        if row["preference"] is not None
    }


def rows(checkout: Path, split: dict[str, list[str]]) -> list[dict[str, Any]]:
    """One row a prompt, in the split's order, with the answers in the models' order."""
    by_model = [judged(checkout / "results", model) for model in split["models"]]
    prompts = {digest(prompt): prompt for answers in by_model for prompt in answers}
    found = []
    for part in ("train", "test"):
        for name in split[part]:
            prompt = prompts[name]
            candidates = [answers[prompt] for answers in by_model if prompt in answers]
            found.append({"split": part, "prompt": prompt, "candidates": candidates})
    return found


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Rebuild the study's data.")
    parser.add_argument("--checkout", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    found = rows(arguments.checkout, json.loads(SPLIT.read_text()))
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
    arguments.output.write_bytes(gzip.compress(text.encode(), mtime=0))
    answers = sum(len(row["candidates"]) for row in found)
    same = content_sha256(arguments.output) == KNOWN_SHA256
    told = "the same as" if same else "not byte for byte"
    print(f"{len(found)} prompts, {answers} answers: {told} the file of the published figures")


if __name__ == "__main__":
    main()
