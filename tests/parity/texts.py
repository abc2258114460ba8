"""Two hundred real texts of 5 to 500 tokens, fetched when the check runs.

They are instructions and answers from the sample outputs of the alpaca-eval
package. That data is licensed CC BY-NC 4.0: it is read from the package's own
file, and no part of it is kept in this repository.
"""

from __future__ import annotations

import random
from pathlib import Path

from tests.parity.reference import GraphModel, Text
from tools.dialogues import Message
from tools.sample_answers import sample_answers

COUNT = 200
CONVERSATIONS = 40
SHORTEST, LONGEST = 5, 500
SEED = 17


def load_texts(cache: Path, model: GraphModel) -> list[Text]:
    """160 single turns and 40 two-turn conversations, spread evenly over their lengths.

    The order is random but fixed, so that neighbours differ in length.
    """
    rows = sample_answers(cache)
    single = [Text.single_turn(prompt, response) for prompt, response in rows]
    turns = [
        Text.conversation(
            [
                Message("user", first[0]),
                Message("assistant", first[1]),
                Message("user", second[0]),
                Message("assistant", second[1]),
            ]
        )
        for first, second in zip(rows[0::2], rows[1::2], strict=False)
    ]
    chosen = _spread(single, model, COUNT - CONVERSATIONS) + _spread(turns, model, CONVERSATIONS)
    random.Random(SEED).shuffle(chosen)
    return chosen


def _spread(texts: list[Text], model: GraphModel, count: int) -> list[Text]:
    lengths = [(model.tokens(text), index) for index, text in enumerate(texts)]
    fitting = sorted(entry for entry in lengths if SHORTEST <= entry[0] <= LONGEST)
    if len(fitting) < count:
        raise SystemExit(f"only {len(fitting)} texts of {SHORTEST} to {LONGEST} tokens")
    step = (len(fitting) - 1) / (count - 1)
    return [texts[fitting[round(place * step)][1]] for place in range(count)]
