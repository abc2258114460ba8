"""What is scored, in the shapes that callers have it, and as the wire carries it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypedDict

from karat_client.errors import InvalidInput
from karat_client.images import Image

ROLES = frozenset({"system", "user", "assistant", "tool"})


class Message(TypedDict):
    """One turn: `role` is `system`, `user`, `assistant` or `tool`."""

    role: str
    content: str | list[dict[str, Any]]


Messages: TypeAlias = Sequence[Mapping[str, Any]]
"""Turns, oldest first. Only `role` and `content` are read; a list of text parts as content is joined.

A part may be an `Image`, or one as OpenAI's clients write it (`image_url`).
"""

Prompt: TypeAlias = "str | Messages"
"""What was asked: plain text, or the turns before the response."""

Response: TypeAlias = "str | Image | Messages"
"""What was answered: plain text, an image, or turns that end with the assistant's."""


@dataclass(frozen=True)
class Input:
    """One input on its way to the server.

    `index` is its place in the caller's list, `body` its JSON in UTF-8, `group` the same for all inputs that
    answer the same prompt.
    """

    index: int
    body: bytes
    group: str


def prefix(prompt: Any) -> str:
    """A digest of a prompt, or of the turns before a response: the same for both, and the same as the server's own.

    Nothing can be read back from it.
    """
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    digest = hashlib.sha256()
    for turn in turns:
        digest.update(f"{turn['role']}\0{_said(turn['content'])}\0".encode())
    return digest.hexdigest()[:16]


def pairs(prompts: Prompt | Iterable[Prompt], responses: Iterable[Response]) -> list[Input | InvalidInput]:
    """Responses with their prompts; a single prompt goes with every response.

    Raises ValueError when there are not as many prompts as responses.
    """
    answers = list(responses)
    asked = _asked(prompts, len(answers), "responses")
    return [
        _checked(index, _pair, prompt, answer)
        for index, (prompt, answer) in enumerate(zip(asked, answers, strict=True))
    ]


def dialogues(messages: Iterable[Messages]) -> list[Input | InvalidInput]:
    """Dialogues that each end with the assistant's turn, which is scored."""
    return [_checked(index, _dialogue, turns) for index, turns in enumerate(messages)]


def rendered(texts: Iterable[str]) -> list[Input | InvalidInput]:
    """Texts that were rendered already; the model's template is not applied."""
    return [_checked(index, _text, text) for index, text in enumerate(texts)]


def preferences(
    prompts: Prompt | Iterable[Prompt], chosen: Iterable[Response], rejected: Iterable[Response]
) -> list[Input | InvalidInput]:
    """Pairs of responses with their prompts; a single prompt goes with every pair.

    Raises ValueError unless there are as many of each.
    """
    better, worse = list(chosen), list(rejected)
    if len(better) != len(worse) or not better:
        raise ValueError(f"there are {len(better)} chosen and {len(worse)} rejected responses; send pairs")
    asked = _asked(prompts, len(better), "pairs")
    sides = zip(asked, better, worse, strict=True)
    return [_checked(index, _preference, *parts) for index, parts in enumerate(sides)]


def solutions(prompts: Prompt | Iterable[Prompt], steps: Iterable[Sequence[str]]) -> list[Input | InvalidInput]:
    """Solutions as lists of steps with their prompts; a single prompt goes with every solution.

    Raises ValueError when there are not as many prompts as solutions.
    """
    lists = list(steps)
    asked = _asked(prompts, len(lists), "solutions")
    return [_checked(index, _solution, *parts) for index, parts in enumerate(zip(asked, lists, strict=True))]


def candidate(response: Response) -> str | Mapping[str, Any]:
    """A candidate as a request carries it: text, or `{"image"}`.

    Raises ValueError unless it is text, an image, or a single turn of the assistant that holds one of them.
    """
    try:
        turns = _answer(response)
    except _Unsendable as error:
        raise ValueError(str(error)) from error
    if len(turns) != 1 or turns[0]["role"] != "assistant":
        raise ValueError("a response is text or a single turn of the assistant; put earlier turns into the prompt")
    content = turns[0]["content"]
    if isinstance(content, str):
        return content
    if len(content) != 1:
        raise ValueError("a response is text or one image; put whatever else was shown into the prompt")
    part = content[0]
    url = part.get("image", part.get("image_url"))
    return {"image": url["url"] if isinstance(url, Mapping) else url}


def context(prompt: Prompt) -> Mapping[str, Any]:
    """A prompt's fields in a request that carries it apart from its responses.

    Raises ValueError when it can't be sent.
    """
    try:
        return {"prompt": prompt} if isinstance(prompt, str) else {"messages": _turns(prompt)}
    except _Unsendable as error:
        raise ValueError(str(error)) from error


def _asked(prompts: Prompt | Iterable[Prompt], count: int, what: str) -> list[Prompt]:
    single = _single_prompt(prompts)
    asked = [single] * count if single is not None else list(prompts)
    if len(asked) != count:
        raise ValueError(f"there are {len(asked)} prompts and {count} {what}; send one prompt for each, or one for all")
    return asked  # type: ignore[return-value]


def _single_prompt(prompts: Prompt | Iterable[Prompt]) -> Prompt | None:
    if isinstance(prompts, str):
        return prompts
    if isinstance(prompts, Sequence) and prompts and all(isinstance(turn, Mapping) for turn in prompts):
        return prompts
    return None


def _checked(index: int, build: Any, *parts: Any) -> Input | InvalidInput:
    """Builds one input, or says why it can't be sent."""
    try:
        fields, group = build(*parts)
        # Not escaped: a lone surrogate must fail here, where the input is known, not at the server.
        body = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return InvalidInput(index, "the text has lone surrogates; decode tokens with errors='replace'")
    except (_Unsendable, ValueError) as error:
        return InvalidInput(index, str(error))
    return Input(index, body, json.dumps(group, sort_keys=True))


class _Unsendable(Exception):
    """Why something can't be an input."""


def _pair(prompt: Prompt, response: Response) -> tuple[Mapping[str, Any], Any]:
    if isinstance(prompt, str) and isinstance(response, str):
        return {"prompt": prompt, "response": response}, prompt
    if isinstance(prompt, str) and isinstance(response, Image):
        return {"prompt": prompt, "image": response.uri}, prompt
    context = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else _turns(prompt)
    return {"messages": [*context, *_answer(response)]}, context


def _preference(prompt: Prompt, chosen: Response, rejected: Response) -> tuple[Mapping[str, Any], Any]:
    fields = dict(context(prompt))
    for name, response in (("chosen", chosen), ("rejected", rejected)):
        try:
            fields[name] = candidate(response)
        except ValueError as error:
            raise _Unsendable(f"{name}: {error}") from error
    return fields, prompt


def _solution(prompt: Prompt, steps: Sequence[str]) -> tuple[Mapping[str, Any], Any]:
    if isinstance(steps, str) or not all(isinstance(step, str) for step in steps):
        raise _Unsendable("a solution is a list of steps, each of them text")
    return {**context(prompt), "steps": list(steps)}, prompt


def _dialogue(messages: Messages) -> tuple[Mapping[str, Any], Any]:
    turns = _turns(messages)
    return {"messages": turns}, turns[:-1]


def _text(text: str) -> tuple[Mapping[str, Any], Any]:
    if not isinstance(text, str):
        raise _Unsendable(f"a text is a string, not {_kind(text)}")
    return {"text": text}, text


def _answer(response: Response) -> list[Message]:
    """The turns of a response."""
    if isinstance(response, Image):
        return [{"role": "assistant", "content": [response.as_part()]}]
    return [{"role": "assistant", "content": response}] if isinstance(response, str) else _turns(response)


def _turns(messages: Messages) -> list[Message]:
    if isinstance(messages, str) or not isinstance(messages, Sequence):
        raise _Unsendable(f"expected text or a list of messages, not {_kind(messages)}")
    return [_turn(message) for message in messages]


def _turn(message: Mapping[str, Any]) -> Message:
    if not isinstance(message, Mapping):
        raise _Unsendable(f"a message is a dict with role and content, not {_kind(message)}")
    role = message.get("role")
    if role not in ROLES:
        raise _Unsendable(f"the role {role!r} is unknown; write one of {', '.join(sorted(ROLES))}")
    return {"role": str(role), "content": _content(message.get("content"))}


def _content(content: Any) -> str | list[dict[str, Any]]:
    """A turn's text; its parts where images are among them."""
    if isinstance(content, str):
        return content
    if isinstance(content, Image):
        return [content.as_part()]
    if isinstance(content, Sequence):
        parts = [_part(part) for part in content]
        if all(isinstance(part, str) for part in parts):
            return "".join(part for part in parts if isinstance(part, str))
        return [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    # A tool call without words has no content. Leaving it out would score another dialogue than the one that was held.
    raise _Unsendable(f"a message's content is text or a list of parts, not {_kind(content)}")


def _said(content: Any) -> str:
    """A turn's text, without what it shows."""
    parts = _content(content)
    return parts if isinstance(parts, str) else "".join(part.get("text", "") for part in parts)


def _part(part: Any) -> str | dict[str, Any]:
    """A part's text, or an image."""
    if isinstance(part, str):
        return part
    if isinstance(part, Image):
        return part.as_part()
    kind = part.get("type") if isinstance(part, Mapping) else _kind(part)
    if kind == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    if kind in ("image", "image_url"):
        written = part.get(kind)
        url = written.get("url") if isinstance(written, Mapping) else written
        if not isinstance(url, str):
            raise _Unsendable(f"a part of the type {kind!r} needs a URL or data URI in {kind!r}")
        return {"type": kind, kind: written}
    raise _Unsendable(f"karat scores text and images, and a message has a part of the type {kind!r}")


def _kind(value: Any) -> str:
    return type(value).__name__
