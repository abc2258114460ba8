"""Conversations as token ids, exactly as the server renders them with a chat template."""

from __future__ import annotations

from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from tools.decoder.checkpoint import SpecialTokens
from tools.dialogues import Message


class ChatTemplate:
    """A checkpoint's chat template, with the settings that Transformers compiles it with."""

    def __init__(self, source: str, tokens: SpecialTokens) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        self._template = environment.from_string(source)
        self._tokens = {"bos_token": tokens.bos or "", "eos_token": tokens.eos or ""}

    def render(self, messages: list[Message]) -> str:
        """The whole conversation as text, with no prompt for another answer."""
        turns = [{"role": message.role, "content": message.content} for message in messages]
        return self._template.render(messages=turns, add_generation_prompt=False, **self._tokens)

    def encode(self, tokenizer: Tokenizer, messages: list[Message]) -> list[int]:
        """The conversation's token ids; the template writes the special tokens itself."""
        return tokenizer.encode(self.render(messages), add_special_tokens=False).ids
