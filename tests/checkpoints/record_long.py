"""What Transformers makes of long texts: recorded checkpoints with a longer context, and with windows that are reached.

`python tests/checkpoints/record_long.py`, in the environment that `record.py` needs. A text is a formula, so that
`long.json` stays small: the tokens of the prompt and of each candidate are those of `prompt` and `candidate` here.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

HERE = Path(__file__).parent
# Around one block of 256 tokens, and beyond two.
PROMPTS = (1, 7, 255, 256, 257, 300, 700)
CANDIDATES = (8, 33, 100, 1, 260)
LONG = {"max_position_embeddings": 2048}
CHECKPOINTS: dict[str, dict[str, Any]] = {
    "llama3": LONG,
    "qwen3": LONG,
    "mistral": LONG | {"sliding_window": 100},
    "gemma2": LONG | {"sliding_window": 40},
}


def prompt(length: int) -> list[int]:
    """The first tokens of the one prompt."""
    return [4 + (7 * at * at + 3 * at) % 256 for at in range(length)]


def candidate(number: int) -> list[int]:
    """The tokens of a candidate."""
    return [4 + (5 * at * at + at + 31 * number) % 256 for at in range(CANDIDATES[number])]


def record(name: str, changes: dict[str, Any]) -> dict[str, Any]:
    """The rewards of one checkpoint: of each prompt alone, and of each with each candidate."""
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(HERE / name, copy, dirs_exist_ok=True)
        config = Path(copy) / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | changes))
        model = AutoModelForSequenceClassification.from_pretrained(
            copy, dtype=torch.float32, attn_implementation="eager"
        ).eval()

    def reward(tokens: list[int]) -> float:
        with torch.no_grad():
            return round(model(input_ids=torch.tensor([tokens])).logits[0, 0].item(), 7)

    prompts = {
        str(length): {
            "alone": reward(prompt(length)),
            "candidates": [reward(prompt(length) + candidate(number)) for number in range(len(CANDIDATES))],
        }
        for length in PROMPTS
    }
    return {"config": changes, "prompts": prompts}


def main() -> None:
    """Writes `long.json` beside this file."""
    recorded = {name: record(name, changes) for name, changes in CHECKPOINTS.items()}
    written = {"candidates": CANDIDATES, "checkpoints": recorded}
    (HERE / "long.json").write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
