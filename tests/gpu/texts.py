"""Texts of a given number of tokens, and the tokenizers that count them: nothing of it is downloaded.

Encoders get a WordPiece and decoders a byte-level BPE, which cost what those of real models cost. Each common word is
one token; decoders' texts have a space before each word, so that it is one token wherever it stands.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from loadtest.decoder import WORDS
from tests.gpu.shapes import Decoder, Shape

# Of the logarithm of lengths: two thirds lie between half and twice the median.
DEVIATION = 0.7
SHORTEST = 10
PROMPT_SHARE = 0.4
SPACE = "Ġ"
# A token whose logit a writer's head reads.
TOKEN = " " + WORDS[0]

Sample = dict[str, Any]


class Vocabulary(Protocol):
    """What a model's tokens are."""

    def tokenizer(self) -> dict[str, Any]:
        """Its `tokenizer.json`."""

    def settings(self) -> dict[str, str]:
        """Its `tokenizer_config.json`."""

    def pair(self, prompt: Sequence[str], response: Sequence[str]) -> tuple[list[int], list[int]]:
        """Ids and types of a sample of these words."""

    @property
    def added(self) -> int:
        """How many tokens a sample has beside its words."""


@dataclass(frozen=True)
class WordPiece:
    """That of an encoder: `[CLS]` prompt `[SEP]` response `[SEP]`, or as RoBERTa has it."""

    roberta: bool

    @property
    def special(self) -> list[str]:
        return ["<s>", "<pad>", "</s>", "<unk>"] if self.roberta else ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]

    @property
    def added(self) -> int:
        return 4 if self.roberta else 3

    @cached_property
    def ids(self) -> dict[str, int]:
        """Every token's number."""
        return {token: number for number, token in enumerate(dict.fromkeys([*self.special, *WORDS]))}

    def tokenizer(self) -> dict[str, Any]:
        ids = self.ids
        begin, end, unknown = (self.special[at] for at in ((0, 2, 3) if self.roberta else (1, 2, 3)))
        kind = "RobertaProcessing" if self.roberta else "BertProcessing"
        processor: dict[str, Any] = {"type": kind, "sep": [end, ids[end]], "cls": [begin, ids[begin]]}
        if self.roberta:
            processor |= {"trim_offsets": True, "add_prefix_space": False}
        return {
            "version": "1.0",
            "added_tokens": [_added(token, number) for number, token in enumerate(self.special)],
            "normalizer": {
                "type": "BertNormalizer",
                "clean_text": True,
                "handle_chinese_chars": True,
                "strip_accents": None,
                "lowercase": True,
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": processor,
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
            "model": {
                "type": "WordPiece",
                "unk_token": unknown,
                "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100,
                "vocab": ids,
            },
        }

    def settings(self) -> dict[str, str]:
        if self.roberta:
            names = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>"}
            return {**names, "pad_token": "<pad>", "unk_token": "<unk>", "tokenizer_class": "RobertaTokenizer"}
        names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
        return {**names, "tokenizer_class": "BertTokenizer"}

    def pair(self, prompt: Sequence[str], response: Sequence[str]) -> tuple[list[int], list[int]]:
        ids = self.ids
        first, second = ([ids[word] for word in words] for words in (prompt, response))
        if self.roberta:
            tokens = [0, *first, 2, 2, *second, 2]
            return tokens, [0] * len(tokens)
        return [1, *first, 2, *second, 2], [0] * (len(first) + 2) + [1] * (len(second) + 1)


@dataclass(frozen=True)
class BytePairs:
    """That of a decoder: bytes, and a chain of merges that makes each word with its space one token. There are tokens
    that no text has, so that whatever a model writes can be read."""

    size: int
    added = 0

    def chains(self) -> list[tuple[str, str]]:
        """Every merge, in order."""
        merges = [(word[:at], word[at]) for word in (SPACE + word for word in WORDS) for at in range(1, len(word))]
        return list(dict.fromkeys(merges))

    @cached_property
    def ids(self) -> dict[str, int]:
        """Every token's number: 0 pads."""
        tokens = ["<pad>", *_byte_letters(), *("".join(merge) for merge in self.chains())]
        tokens += [f"{SPACE}#{number}" for number in range(len(tokens), self.size)]
        return {token: number for number, token in enumerate(tokens)}

    def tokenizer(self) -> dict[str, Any]:
        return {
            "version": "1.0",
            "added_tokens": [_added("<pad>", 0)],
            "normalizer": None,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            "post_processor": None,
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {"type": "BPE", "vocab": self.ids, "merges": [" ".join(merge) for merge in self.chains()]},
        }

    def settings(self) -> dict[str, str]:
        return {"pad_token": "<pad>", "tokenizer_class": "PreTrainedTokenizerFast"}

    def pair(self, prompt: Sequence[str], response: Sequence[str]) -> tuple[list[int], list[int]]:
        ids = self.ids
        tokens = [ids[SPACE + word] for word in (*prompt, *response)]
        return tokens, [0] * len(tokens)


def vocabulary(shape: Shape) -> Vocabulary:
    """That of a model of this shape."""
    return BytePairs(shape.vocabulary) if isinstance(shape, Decoder) else WordPiece(shape.kind == "roberta")


def _added(token: str, number: int) -> dict[str, Any]:
    off = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": number, "content": token, **off, "special": True}


def _byte_letters() -> list[str]:
    """The letters that byte-level BPE writes bytes with, by byte: those of GPT-2."""
    printed = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in set(printed)]
    return [chr(byte) if byte in printed else chr(256 + others.index(byte)) for byte in range(256)]


class Texts:
    """Random texts of a model's words; those of another seed are others."""

    def __init__(self, shape: Shape, seed: int) -> None:
        self._shape, self._words = shape, vocabulary(shape)
        self._random = random.Random(seed)

    def words(self, count: int) -> list[str]:
        """So many words."""
        return self._random.choices(WORDS, k=count)

    def sample(self, prompt: Sequence[str], response: Sequence[str], group: int = 0) -> Sample:
        """A sample of these words, as the load generator reads it."""
        ids, types = self._words.pair(prompt, response)
        return {
            "prompt": " ".join(prompt),
            "response": " ".join(response),
            "ids": ids,
            "type_ids": types,
            "group": group,
        }

    def length(self) -> int:
        """Tokens of a sample: log-normal, cut off at both ends."""
        drawn = round(self._random.lognormvariate(math.log(self._shape.median), DEVIATION))
        return min(self._shape.longest, max(SHORTEST, drawn))

    def mixed(self, count: int) -> list[Sample]:
        """Samples of all lengths, each with a prompt of its own."""
        return [self._mixed(number) for number in range(count)]

    def _mixed(self, number: int) -> Sample:
        words = self.length() - self._words.added
        prompt = max(1, round(PROMPT_SHARE * words))
        return self.sample(self.words(prompt), self.words(words - prompt), number)

    def groups(self, prompts: Sequence[int], responses: Sequence[int]) -> list[list[Sample]]:
        """For each length of a prompt its candidates, by their lengths."""
        found = []
        for group, length in enumerate(prompts):
            prompt = self.words(length)
            found.append([self.sample(prompt, self.words(words), group) for words in responses])
        return found


def write(samples: Sequence[Sample], path: Path) -> Path:
    """Writes them as the load generator reads them; returns the path."""
    path.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    return path
