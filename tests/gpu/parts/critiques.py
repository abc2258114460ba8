"""Writing with the 8 B shape: what a step of sixteen texts takes, and what writing leaves of scoring."""

from __future__ import annotations

import time
from typing import Any

from loadtest import wire
from tests.gpu import kit as kits
from tests.gpu.findings import Table
from tests.gpu.kit import Askers, Kit, Served
from tests.gpu.parts import rates
from tests.gpu.texts import Texts

MODEL = "llama-8b-writer"
TEXTS = 16
STEP_MS, BESIDE = 7.0, 0.8
PROMPT_WORDS, RESPONSE_WORDS = 96, 48
TOKENS = 192
CLIENTS, SAMPLES = 64, 1024
SETTLE_SECONDS = 1.0
WRITTEN = "karat_generated_tokens_total"


class Questions:
    """Requests for critiques, no two alike."""

    def __init__(self, kit: Kit, served: Served) -> None:
        self._shape, self._served = kit.shapes[MODEL], served
        self._tokens = 8 if kit.tiny else TOKENS

    def ask(self, number: int) -> str:
        """Has the critique with that number written; gives its text."""
        texts = Texts(self._shape, seed=number)
        sample = texts.sample(texts.words(PROMPT_WORDS), texts.words(RESPONSE_WORDS))
        body: dict[str, Any] = {"model": MODEL, "prompt": sample["prompt"], "response": sample["response"]}
        body |= {"max_tokens": self._tokens, "score": False}
        text: str = wire.post(self._served.url, "/v1/critique", body)["critiques"][0]["text"]
        return text


def run(kit: Kit, table: Table, served: Served | None) -> None:
    """One text, sixteen, and sixteen beside scoring."""
    assert served
    table.add("seconds until ready", f"{served.seconds:.1f}")
    questions = Questions(kit, served)
    alone = questions.ask(0)
    one = _written(kit, served, Askers(1, questions.ask))
    table.add("one text: tokens/s", f"{one:,.0f}")
    texts = 2 if kit.tiny else TEXTS
    many = _written(kit, served, Askers(texts, questions.ask))
    table.add(f"{texts} texts: tokens/s", f"{many:,.0f}")
    table.at_most(f"{texts} texts: one step", 1e3 * texts / many, STEP_MS, "ms")
    with Askers(texts - 1, lambda number: questions.ask(1000 + number)).running():
        beside = questions.ask(0)
    same = alone == beside and alone != ""
    told = f"{len(alone)} letters, {'the same' if same else 'not the same'}"
    table.add("a text written alone / beside others", told, "the same", holds=same)
    _beside_scoring(kit, table, served, Askers(texts, lambda number: questions.ask(5000 + number)))


def _written(kit: Kit, served: Served, askers: Askers) -> float:
    """Tokens a second while they ask."""
    with askers.running():
        time.sleep(kit.seconds(SETTLE_SECONDS))
        before, started = served.metrics(MODEL)[WRITTEN], time.monotonic()
        time.sleep(kit.seconds(4.0))
        return (served.metrics(MODEL)[WRITTEN] - before) / (time.monotonic() - started)


def _beside_scoring(kit: Kit, table: Table, served: Served, askers: Askers) -> None:
    workloads = kit.workload(MODEL, SAMPLES, kit.generators(CLIENTS), seed=2)
    alone = rates.under_load(kit, table, served, MODEL, workloads, CLIENTS, 5.0).tokens_per_second
    others = kit.workload(MODEL, SAMPLES, kit.generators(CLIENTS), seed=3)
    clients = 8 if kit.tiny else CLIENTS
    with askers.running():
        time.sleep(kit.seconds(SETTLE_SECONDS))
        before, started = served.metrics(MODEL)[WRITTEN], time.monotonic()
        load = kits.closed(kit, served, MODEL, others, clients, kit.seconds(5.0))
        written = (served.metrics(MODEL)[WRITTEN] - before) / (time.monotonic() - started)
    table.add("beside scoring: tokens/s written", f"{written:,.0f}")
    table.at_least("scoring beside critiques / alone", load.tokens_per_second / alone, BESIDE)
