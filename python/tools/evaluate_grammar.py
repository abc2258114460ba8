"""Measures `models/grammar`: which mistakes its reward sees, and where in a text.

Real answers are compared with themselves after one mistake was put in. The
scores come from the graph that is served, by the formula of the token head.
Writes `metrics.json`; with `--server`, compares a running model's scores with
these instead.

    .venv/bin/python -m tools.evaluate_grammar [--server target/release/karat]
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from karat_client import Client
from tools.dialogues import load_tokenizer
from tools.metrics import wilson, write_json
from tools.sample_answers import sample_answers
from tools.server_process import ServerProcess

KEEP = 0
BATCH = 32
ANSWERS = 250
LONG_TEXTS = 60
BAND = 128
BANDS = 4
POSITIONS = BAND * BANDS
TOLERANCE = 1e-4
SENTENCES = (
    "They was happy to see there friends.",
    "They were happy to see their friends.",
)


@dataclass(frozen=True)
class Mistake:
    """One kind of mistake: what it applies to, and what that becomes."""

    name: str
    pattern: re.Pattern[str]
    replace: Callable[[re.Match[str]], str]


def _swap(name: str, words: dict[str, str]) -> Mistake:
    pattern = re.compile(rf"(?<![\w'’])(?:{'|'.join(words)})(?![\w'’])")
    return Mistake(name, pattern, lambda match: words[match[0]])


CONFUSION = _swap(
    "confused words",
    {"their": "there", "its": "it's", "than": "then", "your": "you're", "too": "to"},
)
AGREEMENT = _swap(
    "wrong agreement",
    {"were": "was", "was": "were", "have": "has", "has": "have", "are": "is"},
)
MISTAKES = (
    CONFUSION,
    AGREEMENT,
    Mistake("missing article", re.compile(r"(?<= )(?:the|an?) "), lambda match: ""),
    Mistake("misspelling", re.compile(r"\b[a-z]{7,}\b"), lambda match: match[0][:3] + match[0][4:]),
    Mistake(
        "words swapped",
        re.compile(r"(?<= )([a-z]{2,}) ([a-z]{2,})(?= )"),
        lambda match: f"{match[2]} {match[1]}",
    ),
)


def with_mistake(text: str, match: re.Match[str], mistake: Mistake) -> str:
    """`text` with one mistake where `match` is."""
    return text[: match.start()] + mistake.replace(match) + text[match.end() :]


class Tagger:
    """The served graph, in ONNX Runtime."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = load_tokenizer(str(folder / "tokenizer.json"))
        self._session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])

    def keep(self, texts: list[str]) -> list[np.ndarray]:
        """log P($KEEP) of every token but the special ones, for texts that form one batch."""
        encodings = [self.tokenizer.encode(text) for text in texts]
        shape = (len(texts), max(len(encoding.ids) for encoding in encodings))
        inputs = {name: np.zeros(shape, np.int64) for name in ("input_ids", "attention_mask")}
        for row, encoding in enumerate(encodings):
            inputs["input_ids"][row, : len(encoding.ids)] = encoding.ids
            inputs["attention_mask"][row, : len(encoding.ids)] = 1
        logits = self._session.run(["logits"], inputs)[0].astype(np.float64)
        logits -= logits.max(axis=2, keepdims=True)
        keep = logits[:, :, KEEP] - np.log(np.exp(logits).sum(axis=2))
        return [row[1 : len(e.ids) - 1] for row, e in zip(keep, encodings, strict=True)]

    def rewards(self, texts: list[str]) -> np.ndarray:
        """The reward of each text, in batches of texts of similar length."""
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        rewards = np.empty(len(texts))
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            rewards[places] = [k.mean() for k in self.keep([texts[place] for place in places])]
        return rewards

    def first_pieces(self, text: str) -> np.ndarray:
        """Which tokens begin a word, special ones left out."""
        tokens = self.tokenizer.encode(text).tokens[1:-1]
        return np.array([not token.startswith("##") for token in tokens])


def share(hits: np.ndarray) -> dict[str, Any]:
    """How often a text scored higher than with its mistake."""
    low, high = wilson(int(hits.sum()), len(hits))
    return {
        "pairs": len(hits),
        "seen": round(float(hits.mean()), 4),
        "interval": [round(low, 4), round(high, 4)],
    }


def measure_mistakes(tagger: Tagger, texts: list[str]) -> dict[str, Any]:
    """For every kind of mistake, how often its reward is lower than the text's own."""
    right = tagger.rewards(texts)
    report = {}
    for mistake in MISTAKES:
        places = []
        for index, text in enumerate(texts):
            matches = list(mistake.pattern.finditer(text))
            if matches:
                places.append((index, with_mistake(text, matches[index % len(matches)], mistake)))
        wrong = tagger.rewards([text for _, text in places])
        difference = right[[index for index, _ in places]] - wrong
        median = round(float(np.median(difference)), 4) + 0.0  # never -0.0
        report[mistake.name] = {**share(difference > 0), "median_difference": median}
    return report


def joined(tagger: Tagger, texts: list[str]) -> Iterator[str]:
    """Texts of nearly `POSITIONS` tokens, made of several answers each."""
    parts: list[str] = []
    tokens = 2
    for text in texts:
        length = len(tagger.tokenizer.encode(text).ids) - 2
        if parts and tokens + length > POSITIONS:
            yield "\n\n".join(parts)
            parts, tokens = [], 2
        parts.append(text)
        tokens += length


def measure_positions(tagger: Tagger, texts: list[str]) -> dict[str, Any]:
    """By place in a long text: how often confused words and wrong agreement are seen there.

    Also the mean log P($KEEP) of the untouched text's tokens there.
    """
    found: dict[int, list[bool]] = {band: [] for band in range(BANDS)}
    clean: dict[int, list[float]] = {band: [] for band in range(BANDS)}
    for text in texts:
        keep = tagger.keep([text])[0]
        for band in range(BANDS):
            clean[band] += keep[band * BAND : (band + 1) * BAND].tolist()
        starts = [start for start, _ in tagger.tokenizer.encode(text).offsets[1:-1]]
        done = set()
        for mistake in (CONFUSION, AGREEMENT):
            for match in mistake.pattern.finditer(text):
                band = starts.index(match.start()) // BAND
                if (mistake.name, band) not in done:
                    done.add((mistake.name, band))
                    wrong = tagger.keep([with_mistake(text, match, mistake)])[0]
                    found[band].append(bool(wrong.mean() < keep.mean()))
    return {
        f"{band * BAND} to {(band + 1) * BAND - 1}": {
            **share(np.array(found[band])),
            "mean_untouched": round(float(np.mean(clean[band])), 4),
        }
        for band in range(BANDS)
    }


def measure_pieces(tagger: Tagger, texts: list[str]) -> dict[str, float]:
    """How far the mean over all tokens is from that over the first token of each word."""
    keep = [tagger.keep([text])[0] for text in texts]
    first = [tagger.first_pieces(text) for text in texts]
    every = np.array([k.mean() for k in keep])
    words = np.array([k[f].mean() for k, f in zip(keep, first, strict=True)])
    later = np.concatenate([k[~f] for k, f in zip(keep, first, strict=True)])
    return {
        "mean_over_all_tokens": round(float(every.mean()), 5),
        "mean_over_first_tokens": round(float(words.mean()), 5),
        "largest_difference": round(float(np.abs(every - words).max()), 5),
        "correlation": round(float(np.corrcoef(every, words)[0, 1]), 4),
        "share_of_later_tokens": round(len(later) / sum(map(len, keep)), 4),
    }


def batch_difference(tagger: Tagger, texts: list[str]) -> float:
    """The largest difference of a token's value between a text alone and in a padded batch."""
    alone = [tagger.keep([text])[0] for text in texts]
    groups = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
    padded = [keep for group in groups for keep in tagger.keep(group)]
    return max(float(np.abs(a - b).max()) for a, b in zip(alone, padded, strict=True))


def server_difference(client: Client, tagger: Tagger, texts: list[str]) -> float:
    """The largest difference between a server's rewards and those computed here.

    Each text is sent with a prompt, which must not count.
    """
    served = client.score(prompts="Write something.", responses=texts).rewards
    return float(np.abs(np.array(served) - tagger.rewards(texts)).max())


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Measure the grammar reward model.")
    parser.add_argument("--cache", type=Path, default=Path(".karat/packages"))
    parser.add_argument("--folder", type=Path, default=Path("models/grammar"))
    parser.add_argument("--server", type=Path, help="also compare this karat's scores")
    arguments = parser.parse_args()

    tagger = Tagger(arguments.folder)
    answers = [answer for _, answer in sample_answers(arguments.cache)]
    texts = [*SENTENCES, *answers[:ANSWERS]]
    if arguments.server:
        with (
            ServerProcess(arguments.server, arguments.folder.parent, "--cache-mb", "0") as server,
            Client(server.url, "grammar") as client,
        ):
            difference = server_difference(client, tagger, texts)
        print(f"server: {len(texts)} texts, largest difference {difference:.1e}")
        if not difference <= TOLERANCE:
            sys.exit(f"the largest difference allowed is {TOLERANCE:.0e}")
        return
    report = {
        "sentences": {sentence: round(float(tagger.rewards([sentence])[0]), 3) for sentence in SENTENCES},
        "alone_against_batches": batch_difference(tagger, texts),
        "tokens": measure_pieces(tagger, answers[:ANSWERS]),
        "mistakes": measure_mistakes(tagger, answers[:ANSWERS]),
        "positions": measure_positions(tagger, list(joined(tagger, answers))[:LONG_TEXTS]),
    }
    write_json(arguments.folder / "metrics.json", report)
    print((arguments.folder / "metrics.json").read_text(), end="")


if __name__ == "__main__":
    main()
