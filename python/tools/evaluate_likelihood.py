"""Measures `models/decoders/likelihood` on pairs of which people preferred one.

How often the follow-ups rank the preferred answer higher, by subset and by
category of follow-up. The follow-ups are those of the model's manifest and the
log-probabilities those of the graph that is served. Writes `metrics.json`.

    .venv/bin/python -m tools.evaluate_likelihood --hhh hhh.jsonl
"""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from tools.decoder.chat import ChatTemplate
from tools.decoder.checkpoint import SpecialTokens
from tools.decoder.folder import TEMPLATE
from tools.decoder.reference import log_softmax
from tools.decoder.session import PrefixSession
from tools.dialogues import Message, load_tokenizer, parse_transcript
from tools.metrics import wilson, write_json
from tools.preference_data import read_lines

MAX_TOKENS = 512


class FollowUps:
    """The model: a graph, its tokenizer and template, and what the user may say next."""

    def __init__(self, folder: Path, threads: int) -> None:
        manifest = tomllib.loads((folder / "model.toml").read_text())
        text = manifest["text"]
        self.categories: dict[str, dict[str, list[str]]] = manifest["head"]["follow_up"]["categories"]
        self._tokenizer: Tokenizer = load_tokenizer(str(folder / text["tokenizer"]))
        tokens = SpecialTokens(*(text[f"{name}_token"] for name in ("bos", "eos", "pad")))
        self._template = ChatTemplate((folder / TEMPLATE).read_text(), tokens)
        self._session = PrefixSession(folder / "model.onnx", threads)

    def length(self, messages: list[Message]) -> int:
        """The dialogue's tokens, without a follow-up."""
        return len(self._template.encode(self._tokenizer, messages))

    def scores(self, messages: list[Message]) -> list[float]:
        """Each category's score: mean likelihood of its praise less that of its complaints."""
        dialogue = self._template.encode(self._tokenizer, messages)
        _, past = self._session.run("logits", dialogue, [])
        scores = []
        for sides in self.categories.values():
            means = [
                np.mean([self._likelihood(messages, dialogue, past, text) for text in texts])
                if (texts := sides.get(side, []))
                else 0.0
                for side in ("positive", "negative")
            ]
            scores.append(float(means[0] - means[1]))
        return scores

    def _likelihood(
        self, messages: list[Message], dialogue: list[int], past: dict[str, np.ndarray], text: str
    ) -> float:
        """The mean log-probability of the follow-up's own tokens."""
        rendered = self._template.render([*messages, Message("user", text)])
        encoding = self._tokenizer.encode(rendered, add_special_tokens=False)
        start = rendered.rindex(text)
        own = [
            index for index, (begin, end) in enumerate(encoding.offsets) if begin >= start and end <= start + len(text)
        ]
        if encoding.ids[: len(dialogue)] != dialogue:
            raise SystemExit("the template writes a dialogue differently once it goes on")
        new = encoding.ids[len(dialogue) :]
        read = [index - len(dialogue) - 1 for index in own]
        logits, _ = self._session.run("logits", new, read, past)
        wanted = [encoding.ids[index] for index in own]
        return float(log_softmax(logits.astype(np.float64))[np.arange(len(own)), wanted].mean())


def measure(model: FollowUps, rows: list[dict[str, str]]) -> dict[str, Any]:
    """Accuracies by subset, of the reward and of each category."""
    names = ["reward", *model.categories]
    hits: dict[str, list[list[bool]]] = {}
    for count, row in enumerate(rows, start=1):
        dialogues = [
            parse_transcript(f"\n\nHuman: {row['prompt']}\n\nAssistant: {row[side]}") for side in ("chosen", "rejected")
        ]
        if max(model.length(dialogue) for dialogue in dialogues) > MAX_TOKENS:
            continue
        chosen, rejected = (model.scores(dialogue) for dialogue in dialogues)
        above = [a > b for a, b in zip(chosen, rejected, strict=True)]
        won = [float(np.mean(chosen)) > float(np.mean(rejected)), *above]
        for subset in (row["subset"], "all"):
            hits.setdefault(subset, []).append(won)
        if count % 20 == 0:
            print(f"{count} of {len(rows)} pairs", flush=True)
    report: dict[str, Any] = {"data": "BIG-bench hhh_alignment", "max_tokens": MAX_TOKENS}
    for subset, rows_won in sorted(hits.items()):
        report[subset] = {"pairs": len(rows_won)}
        for index, name in enumerate(names):
            right = sum(row[index] for row in rows_won)
            low, high = wilson(right, len(rows_won))
            report[subset][name] = {
                "accuracy": round(right / len(rows_won), 4),
                "interval": [round(low, 4), round(high, 4)],
            }
    return report


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Measure the follow-up likelihood model.")
    parser.add_argument("--hhh", type=Path, required=True, help="the pairs of BIG-bench hhh_alignment")
    parser.add_argument("--folder", type=Path, default=Path("models/decoders/likelihood"))
    parser.add_argument("--threads", type=int, default=0, help="0: as many as there are cores")
    arguments = parser.parse_args()
    report = measure(FollowUps(arguments.folder, arguments.threads), read_lines(arguments.hhh))
    write_json(arguments.folder / "metrics.json", report)
    for subset, part in report.items():
        if isinstance(part, dict):
            print(subset, part)


if __name__ == "__main__":
    main()
