"""The reference: what a model's scores are, by ONNX Runtime in Python, text by text.

It reads the same `model.toml` as the server and shares no code with it. Every
text is scored alone and unpadded, which no batching can have influenced.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnxruntime

from tools.dialogues import Message, Pair, encode_pair, load_tokenizer, render_pair


@dataclass(frozen=True)
class Text:
    """One input: what the server is asked with, and the pair that it means."""

    prompt: str | list[dict[str, str]]
    pair: Pair

    @property
    def response(self) -> str:
        """What is scored."""
        return self.pair.response

    @classmethod
    def single_turn(cls, prompt: str, response: str) -> Text:
        """A prompt and its response as two strings."""
        return cls(prompt, Pair(prompt, response))

    @classmethod
    def conversation(cls, messages: list[Message]) -> Text:
        """A conversation that ends with the answer to be scored."""
        turns = [{"role": message.role, "content": message.content} for message in messages[:-1]]
        return cls(turns, render_pair(messages))


class GraphModel:
    """A model with a graph of its own."""

    def __init__(self, folder: Path) -> None:
        self.manifest = tomllib.loads((folder / "model.toml").read_text())
        text = self.manifest["text"]
        if text["render"] != "pair" or self.manifest["transforms"]:
            raise SystemExit(f'{folder}: the reference knows render = "pair" without transforms')
        self._folder = folder
        self._tokenizer = load_tokenizer(str(folder / text["tokenizer"]))
        self.max_tokens: int = text["max_tokens"]

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        graph = self._folder / self.manifest["graph"]["file"]
        return onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])

    def tokens(self, text: Text) -> int:
        """Length of the text with its special tokens."""
        return len(encode_pair(self._tokenizer, text.pair).ids)

    def logits(self, texts: list[Text]) -> np.ndarray:
        """Raw scores `[texts, members]`, each text by itself."""
        return np.concatenate([self.logits_of_batch([text]) for text in texts])

    def logits_of_batch(self, texts: list[Text]) -> np.ndarray:
        """Raw scores `[texts, members]` of one batch, padded to its longest text."""
        encodings = [encode_pair(self._tokenizer, text.pair) for text in texts]
        shape = (len(texts), max(len(encoding.ids) for encoding in encodings))
        inputs = {name: np.zeros(shape, np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
        for row, encoding in enumerate(encodings):
            length = len(encoding.ids)
            inputs["input_ids"][row, :length] = encoding.ids
            inputs["attention_mask"][row, :length] = 1
            inputs["token_type_ids"][row, :length] = encoding.type_ids
        (logits,) = self._session.run([self.manifest["graph"]["output"]], inputs)
        return logits.astype(np.float64)


def log_sigmoid(value: np.ndarray) -> np.ndarray:
    """log(1 / (1 + exp(-value))) without overflow."""
    return -np.logaddexp(0.0, -value)


def composite(folder: Path, logits: dict[str, np.ndarray]) -> np.ndarray:
    """Scores `[texts, members]` of a composite's members, from its graphs' logits.

    Members of the composite are the means of their heads, centred and passed
    through log-sigmoid as the manifest says; their sum is the reward.
    """
    manifest = tomllib.loads((folder / "model.toml").read_text())
    if manifest["aggregate"] != "sum":
        raise SystemExit(f'{folder}: the reference knows aggregate = "sum" only')
    columns = []
    for member in manifest["ensemble"]:
        (transform,) = member["transforms"]
        reference = transform["log_sigmoid"]["reference"]
        columns.append(log_sigmoid(logits[member["model"]].mean(axis=1) - reference))
    return np.stack(columns, axis=1)
