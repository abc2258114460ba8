"""A graph that others exported takes padded rows: what a shape costs that the GPU hasn't seen, and traffic of all
lengths, where nearly every shape is one."""

from __future__ import annotations

import json
import shutil
import statistics
import time
from pathlib import Path

from tests.gpu import foreign, texts
from tests.gpu import kit as kits
from tests.gpu.findings import Table, read
from tests.gpu.kit import Kit, Served
from tests.gpu.parts import rates
from tests.gpu.texts import Sample, Texts

MODEL = "foreign"
# The graph is that of this shape.
SHAPE = "minilm-l12"
# Samples and tokens of each: a client's first request of a kind must not wait for a kernel to be planned.
NEW_SHAPES = ((1, 21), (1, 77), (1, 131), (1, 203), (2, 55), (3, 149), (5, 37), (5, 260), (7, 101), (9, 333), (13, 61))
TINY_SHAPES = ((1, 21), (2, 33))
FIRST_MS = 10.0
SAMPLES, CLIENTS = 4096, 256
MANIFEST = """\
head = "scalar"
aggregate = "mean"
providers = ["{provider}"]

[graph]
file = "model.onnx"
output = "logits"

[text]
render = "pair"
pad_token = "[PAD]"
max_tokens = {longest}
"""


def run(kit: Kit, table: Table, _served: Served | None) -> None:
    """New shapes one by one, then mixed traffic."""
    longest = 64 if kit.tiny else kit.shapes[SHAPE].longest
    words = Texts(kit.shapes[SHAPE], seed=6)
    with kits.serving(kit, _repository(kit, longest)) as served:
        card = served.card(MODEL)
        if card["status"] != "ready":
            table.must("a foreign graph", card.get("reason") or card["status"], "ready", holds=False)
            return
        first, again = [], []
        for count, tokens in TINY_SHAPES if kit.tiny else NEW_SHAPES:
            first.append(_milliseconds(served, _samples(words, count, tokens)))
            again.append(_milliseconds(served, _samples(words, count, tokens)))
        table.keep("shapes", {"first": first, "again": again})
        costs = [one - other for one, other in zip(first, again, strict=True)]
        table.add("one request again: median", f"{statistics.median(again):.1f} ms")
        table.at_most("what a new shape costs beside: median", statistics.median(costs), FIRST_MS, "ms")
        table.add("what a new shape costs beside: most", f"{max(costs):.1f} ms")
        samples = [sample for sample in words.mixed(SAMPLES) if len(sample["ids"]) <= longest]
        parts = kit.generators(CLIENTS)
        files = [texts.write(samples[at::parts], kit.work / f"foreign-{at}.jsonl") for at in range(parts)]
        rate = rates.under_load(kit, table, served, MODEL, files, CLIENTS, 6.0).tokens_per_second
    _, packed = read(kit.found("minilm"))
    beside = packed.get(f"{CLIENTS} clients")
    if beside:
        table.add("padded / packed, the same shape", f"{rate / beside['tokens_per_second']:.2f}")


def _repository(kit: Kit, longest: int) -> Path:
    folder = kit.work / "repositories" / "padded" / MODEL
    if not folder.is_dir():
        shutil.copytree(kit.foreign, folder)
    foreign.restore(folder)
    (folder / "tokenizer.json").write_text(json.dumps(texts.WordPiece(roberta=False).tokenizer()))
    (folder / "model.toml").write_text(MANIFEST.format(provider=kit.provider, longest=longest))
    return folder.parent


def _samples(words: Texts, count: int, tokens: int) -> list[Sample]:
    response = tokens - 3 - tokens // 3
    return [words.sample(words.words(tokens // 3), words.words(response)) for _ in range(count)]


def _milliseconds(served: Served, samples: list[Sample]) -> float:
    started = time.perf_counter()
    served.scores(MODEL, samples)
    return (time.perf_counter() - started) * 1e3
