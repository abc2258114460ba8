"""Best-of-N on the 8 B shape: what computing a prompt once saves over HTTP, for prompts of any length."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from loadtest import decoder, wire
from tests.gpu.findings import Table
from tests.gpu.kit import Kit, Served
from tests.gpu.texts import Sample, Texts

MODEL = "llama-8b"
# Tokens of the prompt, candidates, tokens of each, and how many times as fast as unshared it must be.
SHAPES = ((1024, 16, 128, 5.3), (1000, 16, 128, 4.7), (1000, 16, 32, 6.5))
TINY = ((300, 4, 8, 1.0),)
SINGLES = 0.85
ROUNDS = 5


def run(kit: Kit, table: Table, served: Served | None) -> None:
    """Every shape, as a group and as single requests, beside the same with prompts of their own."""
    assert served
    texts = Texts(kit.shapes[MODEL], seed=time.time_ns())
    _seconds(served, _group(texts, 64, 2, 8))
    for prompt, count, response, wanted in TINY if kit.tiny else SHAPES:
        shared, alone, singles = [], [], []
        for _ in range(1 if kit.tiny else ROUNDS):
            shared.append(_seconds(served, _group(texts, prompt, count, response)))
            alone.append(_seconds(served, _strangers(texts, prompt, count, response)))
            candidates = _group(texts, prompt, count, response)
            singles.append(decoder.singles(served.url, MODEL, _pairs(candidates)))
        together, apart, one_by_one = (statistics.median(times) for times in (shared, alone, singles))
        shape = f"{prompt} x {count} x {response}"
        bound = count * (prompt + response) / (prompt + count * response)
        told = f"{together * 1e3:.0f} ms, unshared {apart * 1e3:.0f} ms, singles {one_by_one * 1e3:.0f} ms"
        table.add(f"{shape}: time", f"{told} (tokens saved: {bound:.1f} x)")
        table.at_least(f"{shape}: shared / unshared", apart / together, wanted, digits=1)
        table.at_least(f"{shape}: group / singles within 20 ms", together / one_by_one, SINGLES)
        table.keep(shape, {"shared": shared, "unshared": alone, "singles": singles})


def _group(texts: Texts, prompt: int, count: int, response: int) -> list[Sample]:
    return texts.groups([prompt], [response] * count)[0]


def _strangers(texts: Texts, prompt: int, count: int, response: int) -> list[Sample]:
    return [group[0] for group in texts.groups([prompt] * count, [response])]


def _pairs(samples: Sequence[Sample]) -> list[tuple[str, str]]:
    return [(sample["prompt"], sample["response"]) for sample in samples]


def _seconds(served: Served, samples: Sequence[Sample]) -> float:
    """From sending a request to its whole answer."""
    inputs = [{"prompt": prompt, "response": response} for prompt, response in _pairs(samples)]
    body = {"model": MODEL, "inputs": inputs}
    started = time.perf_counter()
    reply = wire.post(served.url, "/v1/score", body)
    seconds = time.perf_counter() - started
    tokens = sum(len(sample["ids"]) for sample in samples)
    if reply["usage"]["tokens"] != tokens:
        raise RuntimeError(f"the texts have {tokens} tokens, and karat counts {reply['usage']['tokens']}")
    return seconds
