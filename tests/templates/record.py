"""Small chat templates, and what Transformers makes of them.

`python -m tests.templates.record` needs transformers and jinja2, which nothing else here does: install them into an
environment of their own. Each template here is named after what it is written for, and what was recorded of it lies in
a file of the same name.
Recorded with transformers 5.24.0.
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

from transformers.utils import chat_template_utils

HERE = Path(__file__).parent
DATE = datetime.date(2024, 7, 26)
TOKENS = {
    "bos_token": {"content": "<s>", "lstrip": False},
    "eos_token": "</s>",
    "unk_token": None,
    "image_token": "<image>",
    "extra_special_tokens": {"step_token": "<step>"},
}
TURNS: dict[str, list[tuple[str, str]]] = {
    "single": [("user", "Hi"), ("assistant", "Hello!")],
    "system": [("system", "Be brief & kind."), ("user", "Why?"), ("assistant", "So.")],
    "multi": [
        ("user", "Name a prime above 10."),
        ("assistant", "11"),
        ("user", "And above 100?"),
        ("assistant", "101 is prime: none of 2, 3, 5 and 7 divides it."),
    ],
    "odd": [
        ("user", ' it\'s a < b & "c" \\ {{ x }} é 価格 😀\n'),
        ("assistant", "\n  <think>why\n not</think>\n\nso…\t’\x1f \n"),
    ],
    "empty": [("user", "Say nothing."), ("assistant", "")],
    "tool": [("user", "What is 2+2?"), ("assistant", "Let me see."), ("tool", "4"), ("assistant", "Four.")],
    "thoughts": [
        ("system", "S"),
        ("user", "a"),
        ("assistant", "<think>x</think>b"),
        ("user", "c"),
        ("assistant", "<think>\ny\n</think>\n\nd"),
    ],
    "two of the user": [("user", "a"), ("user", "b"), ("assistant", "c")],
    "response alone": [("assistant", "c")],
    "opening": [("user", "Hi")],
    "opening later": [("system", "s"), ("user", "Hi"), ("assistant", "a"), ("user", "b")],
}
OPENINGS = {"opening", "opening later"}


class FixedDate(datetime.datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> FixedDate:
        """The recorded day."""
        return cls(DATE.year, DATE.month, DATE.day, tzinfo=tz)


def names(tokens: dict[str, Any]) -> dict[str, str]:
    """The tokens that a tokenizer with such settings hands to its template."""
    flat = {**tokens, **tokens.get("extra_special_tokens", {})}
    texts = {
        name: token["content"] if isinstance(token, dict) and "content" in token else token
        for name, token in flat.items()
    }
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def record(template: str, tokens: dict[str, Any]) -> dict[str, Any]:
    """What Transformers makes of every conversation by a template."""
    chat_template_utils.datetime = FixedDate
    cases = []
    for name, turns in TURNS.items():
        messages = [{"role": role, "content": content} for role, content in turns]
        case: dict[str, Any] = {"name": name, "messages": messages}
        if name in OPENINGS:
            case["opening"] = True
        try:
            rendered, _ = chat_template_utils.render_jinja_template(
                [messages],
                chat_template=template,
                add_generation_prompt=name in OPENINGS,
                **names(tokens),
            )
            case["text"] = rendered[0]
        except Exception as error:
            case["refused"] = f"{type(error).__name__}: {error}"
        cases.append(case)
    return {"tokens": tokens, "date": DATE.isoformat(), "cases": cases}


def write(path: Path, recorded: dict[str, Any]) -> None:
    """Writes what was recorded of the template in `path` beside it."""
    text = json.dumps(recorded, ensure_ascii=False, indent=1) + "\n"
    path.with_suffix(".json").write_text(text, encoding="utf-8")


def main() -> None:
    """Records every template beside this file."""
    for path in sorted(HERE.glob("*.jinja")):
        recorded = record(path.read_text(encoding="utf-8"), TOKENS)
        write(path, recorded)
        print(path.stem, sum("text" in case for case in recorded["cases"]), "of", len(TURNS), "rendered")


if __name__ == "__main__":
    main()
