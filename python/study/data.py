"""The answers of many language models to one set of prompts, with a judge's preference for each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tools.preference_data import content_sha256, read_lines


@dataclass(frozen=True)
class Answer:
    """One model's response; `gold`, 0 to 1, is the judge's probability that it beats another."""

    model: str
    response: str
    gold: float


@dataclass(frozen=True)
class Question:
    """A prompt with its answers, in the file's order."""

    prompt: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Answers:
    """The whole file; no prompt is in both parts."""

    train: tuple[Question, ...]
    test: tuple[Question, ...]
    sha256: str


def load(path: Path) -> Answers:
    """Reads what `rebuild_data.py` writes; raises SystemExit when a prompt is in both parts."""
    parts: dict[str, list[Question]] = {"train": [], "test": []}
    for row in read_lines(path):
        answers = tuple(Answer(a["model"], a["response"], a["gold"]) for a in row["candidates"])
        parts[row["split"]].append(Question(row["prompt"], answers))
    train, test = (tuple(parts[name]) for name in ("train", "test"))
    shared = {q.prompt for q in train} & {q.prompt for q in test}
    if shared:
        raise SystemExit(f"{path}: {len(shared)} prompts are both for training and for testing")
    return Answers(train, test, content_sha256(path))
