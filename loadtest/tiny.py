"""A model whose scores can be computed by hand and that costs next to nothing: what is measured with it is the server.

A text's score is the sum of its numbers from 10 to 299 over 1000; every other word counts 3. The graph is that of the
tests (`tests/graphs/sum.onnx`), and nothing has to be downloaded or built for it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

GRAPHS = Path(__file__).parent.parent / "tests/graphs"
MANIFEST = """\
{rules}
[graph]
file = "sum.onnx"
[text]
render = "pair"
special_tokens = false
pad_token = "[PAD]"
max_tokens = 512
"""
SPECIAL = {"[CLS]": 1, "[SEP]": 2, "[UNK]": 3, "[PAD]": 9}
NUMBERS = range(10, 300)


def tokenizer() -> str:
    """A number is a token of its own, and any other word the token 3."""
    vocabulary = SPECIAL | {str(number): number for number in NUMBERS}
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": None,
            "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
            "decoder": None,
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
        }
    )


def write_tiny(folder: Path, rules: str = "transforms = []") -> None:
    """Writes the model's folder, with `rules` at the top of its manifest."""
    folder.mkdir(parents=True)
    (folder / "model.toml").write_text(MANIFEST.format(rules=rules))
    (folder / "tokenizer.json").write_text(tokenizer())
    shutil.copy(GRAPHS / "sum.onnx", folder / "sum.onnx")


def expected(text: str) -> float:
    """The score of words that white space separates."""
    known = {str(number): number for number in NUMBERS}
    return sum(known.get(word, SPECIAL["[UNK]"]) for word in text.split()) / 1000
