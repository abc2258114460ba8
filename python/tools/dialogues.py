"""Dialogues as a prompt and a response, exactly as the server renders a pair.

A head that is trained on one rendering and served on another is a different
model, so training, evaluation and the parity check all go through here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tokenizers import Encoding, Tokenizer

SPEAKERS = {"user": "Human", "assistant": "Assistant", "system": "System"}
_TURN = re.compile(r"\n\n(Human|Assistant):(?: |$)")
_ROLES = {"Human": "user", "Assistant": "assistant"}


@dataclass(frozen=True)
class Message:
    """One turn; `role` is `user`, `assistant` or `system`."""

    role: str
    content: str


@dataclass(frozen=True)
class Pair:
    """What the tokenizer sees: first sentence and second sentence."""

    prompt: str
    response: str


def parse_transcript(text: str) -> list[Message]:
    """Splits a `\\n\\nHuman: … \\n\\nAssistant: …` transcript into its turns.

    Raises ValueError when the text doesn't begin with a turn.
    """
    pieces = _TURN.split(text)
    if pieces[0].strip() or len(pieces) < 3:
        raise ValueError("the transcript does not begin with a turn")
    return [
        Message(_ROLES[speaker], content.strip()) for speaker, content in zip(pieces[1::2], pieces[2::2], strict=True)
    ]


def render_prompt(turns: list[Message]) -> str:
    """The prompt side: a single user turn bare, several turns each with its speaker."""
    if len(turns) == 1 and turns[0].role == "user":
        return turns[0].content
    return "\n\n".join(f"{SPEAKERS[turn.role]}: {turn.content}" for turn in turns)


def render_pair(messages: list[Message]) -> Pair:
    """Everything before the last assistant message against that message.

    Raises ValueError unless the conversation ends with a non-empty answer
    that something precedes.
    """
    if len(messages) < 2 or messages[-1].role != "assistant" or not messages[-1].content:
        raise ValueError("the conversation does not end with an answer to something")
    return Pair(render_prompt(messages[:-1]), messages[-1].content)


def load_tokenizer(path: str) -> Tokenizer:
    """A tokenizer that neither pads nor truncates, whatever its file says."""
    tokenizer = Tokenizer.from_file(path)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def encode_pair(tokenizer: Tokenizer, pair: Pair) -> Encoding:
    """Token ids with the special tokens and token types of a sentence pair."""
    return tokenizer.encode(pair.prompt, pair.response)
