"""The samples of the load test: real text, cut to lengths as they occur in training.

Instructions and answers come from the sample outputs of the alpaca-eval package
(CC BY-NC 4.0): they are read from the package's own file, and what is made of
them stays in a folder that git ignores. Equal seeds give equal samples.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer

from tools.dialogues import Pair, encode_pair, load_tokenizer
from tools.sample_answers import sample_answers

MEDIAN, SHORTEST, LONGEST = 160, 16, 512
# Of the logarithm; two thirds of all samples have between 80 and 320 tokens.
DEVIATION = 0.7
SHORT, LONG = 32, LONGEST
GROUP_SHARE, GROUP_SIZE = 0.25, 8
PROMPT_SHARE = 0.4
SEED = 29


@dataclass(frozen=True)
class Sample:
    """A prompt, a response, and what the model's tokenizer makes of them."""

    prompt: str
    response: str
    ids: list[int]
    type_ids: list[int]
    group: int

    @property
    def tokens(self) -> int:
        """How many there are."""
        return len(self.ids)


@dataclass(frozen=True)
class Workload:
    """Samples in a file, in the order in which they are sent."""

    path: Path
    samples: list[Sample]

    @cached_property
    def tokens(self) -> int:
        """How many there are."""
        return sum(sample.tokens for sample in self.samples)

    @property
    def mean_tokens(self) -> float:
        """How long a sample is on average."""
        return self.tokens / len(self.samples)

    def parts(self, size: int) -> list[Workload]:
        """Its samples in files of `size` each beside its own; what is left over is left out."""
        starts = range(0, len(self.samples) - size + 1, size)
        return [
            _write(self.path.with_stem(f"{self.path.stem}-{size}-{number}"), self.samples[start : start + size])
            for number, start in enumerate(starts)
        ]

    def summary(self) -> dict[str, float | int]:
        """What the results say of it."""
        lengths = sorted(sample.tokens for sample in self.samples)
        groups: dict[int, int] = {}
        for sample in self.samples:
            groups[sample.group] = groups.get(sample.group, 0) + 1
        grouped = sum(size for size in groups.values() if size > 1)
        return {
            "samples": len(lengths),
            "tokens": sum(lengths),
            "shortest": lengths[0],
            "median": lengths[len(lengths) // 2],
            "longest": lengths[-1],
            "share_in_groups": grouped / len(lengths),
        }


class Texts:
    """Cuts and joins real text to a number of tokens."""

    def __init__(self, tokenizer: Tokenizer, cache: Path, seed: int) -> None:
        pairs = sample_answers(cache)
        self._tokenizer = tokenizer
        self._instructions = [instruction for instruction, _ in pairs]
        self._answers = [answer for _, answer in pairs]
        self._random = random.Random(seed)

    def prompt(self, most: int) -> str:
        """A random instruction of at most that many tokens."""
        return self._cut(self._random.choice(self._instructions), most)

    def sample(self, prompt: str, wanted: int, group: int) -> Sample:
        """A sample of `wanted` tokens, or of one or two fewer where a cut fell into a word."""
        room = wanted - len(encode_pair(self._tokenizer, Pair(prompt, "")).ids)
        text = self._answer(room)
        for spare in range(room):
            response = self._cut(text, room - spare)
            encoding = encode_pair(self._tokenizer, Pair(prompt, response))
            if len(encoding.ids) <= wanted:
                return Sample(prompt, response, encoding.ids, encoding.type_ids, group)
        raise SystemExit(f"no response fits {wanted} tokens beside {prompt!r}")

    def exact(self, wanted: int, group: int) -> Sample:
        """A sample of exactly that many tokens."""
        for _ in range(100):
            sample = self.sample(self.prompt(int(wanted * PROMPT_SHARE)), wanted, group)
            if sample.tokens == wanted:
                return sample
        raise SystemExit(f"no text gives exactly {wanted} tokens")

    def length(self) -> int:
        """Log-normal, cut off at both ends."""
        drawn = self._random.lognormvariate(math.log(MEDIAN), DEVIATION)
        return min(LONGEST, max(SHORTEST, round(drawn)))

    def is_group(self) -> bool:
        """Whether a group comes next, such that `GROUP_SHARE` of all samples are in one."""
        share = GROUP_SHARE / (GROUP_SIZE - (GROUP_SIZE - 1) * GROUP_SHARE)
        return self._random.random() < share

    def _answer(self, tokens: int) -> str:
        """Answers from a random one on, as many as hold that many tokens."""
        start = self._random.randrange(len(self._answers))
        pieces: list[str] = []
        found = 0
        while found < tokens:
            piece = self._answers[(start + len(pieces)) % len(self._answers)]
            found += len(self._tokenizer.encode(piece, add_special_tokens=False).ids)
            pieces.append(piece)
        return "\n\n".join(pieces)

    def _cut(self, text: str, tokens: int) -> str:
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        return text if len(offsets) <= tokens else text[: offsets[max(tokens, 1) - 1][1]]


@dataclass(frozen=True)
class Workloads:
    """What one model is loaded with."""

    mixed: Workload
    short: Workload
    long: Workload


def make(model: Path, count: int, cache: Path, folder: Path) -> Workloads:
    """Writes the three files for the model in that folder, each with its tokens."""
    tokenizer = load_tokenizer(str(model / "tokenizer.json"))
    texts = Texts(tokenizer, cache, SEED)

    def write(name: str, samples: list[Sample]) -> Workload:
        folder.mkdir(parents=True, exist_ok=True)
        return _write(folder / f"{model.name}-{name}.jsonl", samples)

    return Workloads(
        mixed=write("mixed", _mixed(texts, count)),
        short=write("short", _distinct(texts, SHORT, 512)),
        long=write("long", _distinct(texts, LONG, 64)),
    )


def _write(path: Path, samples: list[Sample]) -> Workload:
    path.write_text("".join(json.dumps(vars(sample)) + "\n" for sample in samples))
    return Workload(path, samples)


def _mixed(texts: Texts, count: int) -> list[Sample]:
    samples: list[Sample] = []
    group = 0
    while len(samples) < count:
        size = GROUP_SIZE if texts.is_group() else 1
        lengths = [texts.length() for _ in range(min(size, count - len(samples)))]
        prompt = texts.prompt(max(1, int(min(lengths) * PROMPT_SHARE)))
        samples += [texts.sample(prompt, length, group) for length in lengths]
        group += 1
    return samples


def _distinct(texts: Texts, tokens: int, count: int) -> list[Sample]:
    found: dict[tuple[int, ...], Sample] = {}
    while len(found) < count:
        sample = texts.exact(tokens, len(found))
        found.setdefault(tuple(sample.ids), sample)
    return list(found.values())
