"""What a decoder in 8 bits makes of real answers, alone and in company."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from tools.chat import ChatTokenizer
from tools.decoder_rows import ROW, DecoderRows
from tools.dialogues import Message
from tools.eight_bits.report import Report, open_session, time_ratio
from tools.eight_bits.sizes import Watched
from tools.half_precision import CANDIDATES, LONGEST, parity
from tools.sample_answers import sample_answers

PROMPTS = 8
# Rows of another length, which cut texts elsewhere.
OTHER_ROW = 100


@dataclass(frozen=True)
class Answers:
    """Answers to one prompt, each a whole conversation's tokens, and how many tokens all begin with."""

    shared: int
    texts: list[list[int]]

    @classmethod
    def of(cls, texts: list[list[int]]) -> Answers:
        """Texts that begin alike; of each, one token at least is its own."""
        most = min(map(len, texts)) - 1
        differing = (at for at in range(most) if len({text[at] for text in texts}) > 1)
        return cls(next(differing, most), texts)


def real_answers(folder: Path, cache: Path, first: int = 0) -> list[Answers]:
    """Real prompts, from the one of that number on, with their own answer and those of others, as the model's template
    writes them.
    """
    tokenizer = ChatTokenizer(folder)
    pairs = sample_answers(cache)[first : first + PROMPTS + CANDIDATES]
    answers = []
    for number in range(PROMPTS):
        prompt = Message("user", pairs[number][0])
        candidates = [Message("assistant", answer) for _, answer in pairs[number : number + CANDIDATES]]
        answers.append(Answers.of([tokenizer.ids([prompt, candidate])[:LONGEST] for candidate in candidates]))
    return answers


def measure(graph: Watched, folder: Path, cache: Path) -> None:
    """Runs a graph on real answers, which are none of those that are compared."""
    rows = DecoderRows(graph)
    for answers in real_answers(folder, cache, PROMPTS + CANDIDATES):
        rows.alone(answers.texts[0])


def alone(graph: DecoderRows, answers: list[Answers], row: int = ROW) -> np.ndarray:
    """The scores of shape [prompts, candidates, outputs], each text in rows of its own."""
    return np.array([[graph.alone(text, row) for text in each.texts] for each in answers], np.float64)


def together(graph: DecoderRows, answers: list[Answers]) -> np.ndarray:
    """The same behind what texts begin with in common, in rows that they share."""
    scores = []
    for each in answers:
        endings = [text[each.shared :] for text in each.texts]
        scores.append(graph.together(each.texts[0][: each.shared], endings))
    return np.array(scores, np.float64)


def compare(
    original: onnx.ModelProto, converted: onnx.ModelProto, folder: Path, cache: Path, tolerance: float
) -> Report:
    """Scores both graphs; `tolerance` is in standard deviations of scores."""
    answers = real_answers(folder, cache)
    graphs = [DecoderRows(open_session(model)) for model in (original, converted)]
    expected, found = (alone(graph, answers) for graph in graphs)
    others = [together(graphs[1], answers), alone(graphs[1], answers, OTHER_ROW)]
    return Report(
        parity(expected, found, tolerance * float(expected.std(axis=(0, 1)).min())),
        time_ratio(lambda number: alone(graphs[number], answers)),
        time_ratio(lambda number: together(graphs[number], answers)),
        max(float(np.abs(other - found).max()) for other in others),
    )
