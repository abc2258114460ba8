"""Conversations as token ids, exactly as the server renders them with a checkpoint's chat template."""

from __future__ import annotations

import json
from pathlib import Path

from jinja2.sandbox import ImmutableSandboxedEnvironment

from tools.dialogues import Message, load_tokenizer


class ChatTokenizer:
    """A checkpoint's tokenizer and chat template, with the settings that Transformers compiles it with."""

    def __init__(self, checkpoint: Path) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        self._template = environment.from_string((checkpoint / "chat_template.jinja").read_text())
        self._settings = json.loads((checkpoint / "tokenizer_config.json").read_text())
        self._tokenizer = load_tokenizer(str(checkpoint / "tokenizer.json"))

    def render(self, messages: list[Message]) -> str:
        """The whole conversation as text, with no prompt for another answer."""
        turns = [{"role": message.role, "content": message.content} for message in messages]
        return self._template.render(messages=turns, add_generation_prompt=False, **self._settings)

    def length(self, messages: list[Message]) -> int:
        """How many tokens the conversation has."""
        return len(self.ids(messages))

    def ids(self, messages: list[Message]) -> list[int]:
        """Its tokens; the template writes the special ones itself."""
        return self._tokenizer.encode(self.render(messages), add_special_tokens=False).ids
