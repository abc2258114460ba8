"""Human preference pairs, read, rendered and split the same way every time."""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.dialogues import Pair, parse_transcript, render_pair

# The share of the prompts that no head is trained or tuned on.
HELD_OUT_SHARE = 0.225


@dataclass(frozen=True)
class Preference:
    """Two answers to one conversation, of which people preferred `chosen`.

    `row` is the line in its file, from 0; `group` is the conversation's first
    turn, by which the data is split; `subset` is empty where there is none.
    """

    row: int
    group: str
    chosen: Pair
    rejected: Pair
    subset: str = ""

    @property
    def held_out(self) -> bool:
        """Whether the pair is for testing only.

        A hash of the first turn decides, so that no prompt is on both sides
        and that the same pair falls on the same side in any order or subset.
        """
        return hash_fraction(self.group) < HELD_OUT_SHARE


def hash_fraction(text: str) -> float:
    """A number in [0, 1) that depends on `text` alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def read_bytes(path: Path) -> bytes:
    """A file's content, decompressed if its name ends in `.gz`."""
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def content_sha256(path: Path) -> str:
    """SHA-256 of the uncompressed content, which names the data whoever packed it."""
    return hashlib.sha256(read_bytes(path)).hexdigest()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a `.jsonl` or `.jsonl.gz` file."""
    lines = read_bytes(path).decode().split("\n")
    return [json.loads(line) for line in lines if line]


def load_transcripts(path: Path) -> list[Preference]:
    """Pairs of whole transcripts (`chosen`, `rejected`), as in anthropics/hh-rlhf.

    A row whose two transcripts don't share everything before a last, non-empty
    answer is left out.
    """
    preferences = []
    for row, record in enumerate(read_lines(path)):
        try:
            chosen = parse_transcript(record["chosen"])
            rejected = parse_transcript(record["rejected"])
            if chosen[:-1] != rejected[:-1]:
                continue
            pair = render_pair(chosen), render_pair(rejected)
        except ValueError:
            continue
        preferences.append(Preference(row, chosen[0].content, *pair))
    return preferences


def load_hhh(path: Path) -> list[Preference]:
    """Pairs of answers to a prompt (`subset, prompt, chosen, rejected`), as in BIG-bench HHH.

    A prompt begins with the user's words and may go on with further turns.
    """
    preferences = []
    for row, record in enumerate(read_lines(path)):
        sides = [
            render_pair(parse_transcript(f"\n\nHuman: {record['prompt']}\n\nAssistant: {answer}"))
            for answer in (record["chosen"], record["rejected"])
        ]
        chosen, rejected = sides
        preferences.append(Preference(row, record["prompt"], chosen, rejected, record["subset"]))
    return preferences
