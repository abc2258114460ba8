"""Measures `models/decoders/likelihood` on pairs of which people preferred one.

How often the follow-ups rank the preferred answer higher, by subset and by
category of follow-up. The follow-ups are those of the model's manifest and the
scores those that karat gives. Writes `metrics.json`.

    .venv/bin/python -m tools.evaluate_likelihood --hhh hhh.jsonl
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from karat_client import Client
from tools.chat import ChatTokenizer
from tools.dialogues import parse_transcript
from tools.metrics import wilson, write_json
from tools.preference_data import read_lines
from tools.server_process import ServerProcess

MODEL = "likelihood"
MAX_TOKENS = 512


def measure(client: Client, tokenizer: ChatTokenizer, rows: list[dict[str, str]]) -> dict[str, Any]:
    """Accuracies by subset, of the reward and of each category."""
    hits: dict[str, list[dict[str, bool]]] = {}
    for count, row in enumerate(rows, start=1):
        dialogues = [
            parse_transcript(f"\n\nHuman: {row['prompt']}\n\nAssistant: {row[side]}") for side in ("chosen", "rejected")
        ]
        if max(map(tokenizer.length, dialogues)) > MAX_TOKENS:
            continue
        messages = [[asdict(turn) for turn in dialogue] for dialogue in dialogues]
        scores = client.score(messages=messages, include=["objectives"])
        chosen, rejected = ({"reward": result.reward, **(result.objectives or {})} for result in scores.results)
        won = {name: chosen[name] > rejected[name] for name in chosen}
        for subset in (row["subset"], "all"):
            hits.setdefault(subset, []).append(won)
        if count % 20 == 0:
            print(f"{count} of {len(rows)} pairs", flush=True)
    report: dict[str, Any] = {"data": "BIG-bench hhh_alignment", "max_tokens": MAX_TOKENS}
    for subset, rows_won in sorted(hits.items()):
        report[subset] = {"pairs": len(rows_won)}
        for name in rows_won[0]:
            right = sum(won[name] for won in rows_won)
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
    parser.add_argument("--models", type=Path, default=Path("models/decoders"))
    parser.add_argument("--server", type=Path, default=Path("target/release/karat"))
    arguments = parser.parse_args()
    folder = arguments.models / MODEL
    with ServerProcess(arguments.server, arguments.models) as server, Client(server.url, MODEL) as client:
        report = measure(client, ChatTokenizer(folder), read_lines(arguments.hhh))
    write_json(folder / "metrics.json", report)
    for subset, part in report.items():
        if isinstance(part, dict):
            print(subset, part)


if __name__ == "__main__":
    main()
