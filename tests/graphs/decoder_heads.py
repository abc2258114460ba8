"""What the heads that ask a decoder must give for a few dialogues, from what Transformers makes of whole texts.

Written from the heads' published formulas and from the template and questions below, which the Rust tests write in
their manifests: nothing here packs, batches or shares a beginning.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

Ids = list[int]
Turn = tuple[str, Ids]

# The template: a beginning, then each turn between the mark of who speaks and an end.
BEGINNING, END = 290, 293
SPEAKERS = {"system": 294, "user": 291, "assistant": 292}
MAX_TOKENS = 200

BETA = 0.5
FOLLOW_UPS = {
    "thanks": ([[17, 60], [201]], [[11]]),
    "safety": ([], [[33, 34, 35]]),
}
BETTER: tuple[Ids, Ids] = ([15, 16], [])
WORSE: tuple[Ids, Ids] = ([18], [19, 18])
SINGLE_QUESTION, YES, NO = [25, 26], [30, 31], [40]
PAIR_MARKS, FIRST, SECOND = [27, 28, 29], [30], [40, 41]
# A judge of pairs gets a dialogue as text that names who speaks, as in "Human:": a word and a colon, both unknown.
SPEAKER_IN_TEXT = [3, 3]

GREEDY_TOKENS = 4


class Decoder(Protocol):
    """A language model that reads whole texts."""

    def logits(self, ids: Ids) -> np.ndarray:
        """Of the token that follows each token, `[tokens, vocabulary]`."""
        ...

    def hidden(self, ids: Ids) -> np.ndarray:
        """The state at each token after the final norm, `[tokens, hidden]`."""
        ...


@dataclass(frozen=True)
class Decoders:
    """A tuned policy and the reference model that it started from."""

    policy: Decoder
    reference: Decoder


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """The logarithms of the probabilities."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def template(turns: list[Turn]) -> Ids:
    """Turns as token ids, all ended."""
    ids = [BEGINNING]
    for role, said in turns:
        ids += [SPEAKERS[role], *said, END]
    return ids


def opening(turns: list[Turn]) -> Ids:
    """Turns up to where the assistant speaks next."""
    return [*template(turns), SPEAKERS["assistant"]]


def shortened(ids: Ids) -> Ids:
    """The beginning and as many of the last tokens as the model takes."""
    excess = max(len(ids) - MAX_TOKENS, 0)
    return ids[:1] + ids[1 + excess :]


def likelihood(model: Decoder, turns: list[Turn]) -> np.ndarray:
    """The log-probability of each token that the last turn says."""
    said = turns[-1][1]
    ids = shortened(template(turns)[:-1])
    logits = log_softmax(model.logits(ids))
    places = np.arange(len(ids) - len(said), len(ids))
    return logits[places - 1, said]


def share(model: Decoder, ids: Ids, first: Ids, second: Ids) -> float:
    """How likely the next token is one of `first`, if it is one of both."""
    probabilities = np.exp(log_softmax(model.logits(shortened(ids)))[-1])
    ours, theirs = probabilities[first].sum(), probabilities[second].sum()
    return float(ours / (ours + theirs))


def follow_ups(model: Decoder, turns: list[Turn]) -> list[float]:
    """Each category's mean over its praise less its mean over its complaints."""

    def side(texts: list[Ids]) -> float:
        means = [likelihood(model, [*turns, ("user", text)]).mean() for text in texts]
        return float(np.mean(means)) if means else 0.0

    return [side(praise) - side(complaints) for praise, complaints in FOLLOW_UPS.values()]


def contrast(model: Decoder, turns: list[Turn]) -> np.ndarray:
    """What each token of the response gains by a prompt for a better answer."""
    last_user = max(place for place, (role, _) in enumerate(turns) if role == "user")

    def asked(before: Ids, after: Ids) -> np.ndarray:
        changed = list(turns)
        changed[last_user] = ("user", [*before, *turns[last_user][1], *after])
        return likelihood(model, changed)

    return 1 / (1 + np.exp(asked(*WORSE) - asked(*BETTER))) - 0.5


def pair_orders(model: Decoder, context: list[Turn], ours: Ids, theirs: Ids) -> list[float]:
    """The preference for `ours` when it is shown first, and when it is shown second."""
    alone = len(context) == 1 and context[0][0] == "user"
    prompt = [word for _, said in context for word in ([] if alone else SPEAKER_IN_TEXT) + said]

    def first_wins(one: Ids, two: Ids) -> float:
        question = [PAIR_MARKS[0], *prompt, PAIR_MARKS[1], *one, PAIR_MARKS[2], *two]
        return share(model, opening([("user", question)]), FIRST, SECOND)

    return [first_wins(ours, theirs), 1 - first_wins(theirs, ours)]


def continuation(model: Decoder, context: list[Turn]) -> Ids:
    """What the model itself would say, as words that the tests' tokenizer knows and the template doesn't use."""
    ids = opening(context)
    for _ in range(GREEDY_TOKENS):
        ids.append(10 + int(model.logits(ids)[-1][10:BEGINNING].argmax()))
    return ids[-GREEDY_TOKENS:]


def contexts() -> list[list[Turn]]:
    """What goes before the responses: a short prompt, a dialogue of several turns, a longer prompt, and nothing."""
    words = np.random.default_rng(43).integers(10, BEGINNING, 140).tolist()
    return [
        [("user", [20, 30])],
        [
            ("system", words[:6]),
            ("user", words[6:18]),
            ("assistant", words[18:23]),
            ("user", words[23:30]),
        ],
        [("user", words)],
        [("user", [])],
    ]


def too_long_contexts() -> list[list[Turn]]:
    """Longer than the model takes: one prompt, and an early turn of a dialogue."""
    words = np.random.default_rng(44).integers(10, BEGINNING, MAX_TOKENS + 40).tolist()
    return [[("user", words)], [("user", words), ("assistant", [50, 51]), ("user", [20, 30])]]


def candidate(models: Decoders, context: list[Turn], response: Ids) -> dict[str, Any]:
    """Everything that is said of one response."""
    turns = [*context, ("assistant", response)]
    return {
        "response": response,
        "policy": likelihood(models.policy, turns).tolist(),
        "reference": likelihood(models.reference, turns).tolist(),
        "follow_ups": follow_ups(models.policy, turns),
        "contrast": contrast(models.policy, turns).tolist(),
        "state": models.policy.hidden(shortened(template(turns)))[-1].tolist(),
        "yes": share(models.policy, opening([*turns, ("user", SINGLE_QUESTION)]), YES, NO),
    }


def dialogue(models: Decoders, context: list[Turn]) -> dict[str, Any]:
    """One context with its candidates, and each of those compared with the next."""
    last = context[-1][1]
    # A single word, that word and more, the prompt's last words once more, and what the model would say itself.
    responses = [[40], [40, 50, 60], last[-5:] or [21], continuation(models.policy, context)]
    orders = [pair_orders(models.policy, context, ours, theirs) for ours, theirs in pairwise(responses)]
    return {
        "messages": [{"role": role, "content": said} for role, said in context],
        "candidates": [candidate(models, context, response) for response in responses],
        "orders": orders,
    }


def shortened_dialogue(models: Decoders, context: list[Turn]) -> dict[str, Any]:
    """One context whose start is cut, with its candidates; no judge of pairs takes it."""
    return {
        "messages": [{"role": role, "content": said} for role, said in context],
        "candidates": [candidate(models, context, response) for response in ([40], [40, 50, 60])],
        "orders": [],
    }


def cases(models: Decoders) -> dict[str, Any]:
    """All that the Rust tests compare with."""
    return {
        "dialogues": [dialogue(models, context) for context in contexts()],
        "too_long": [shortened_dialogue(models, context) for context in too_long_contexts()],
    }
