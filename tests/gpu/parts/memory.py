"""Passes that the GPU's memory doesn't hold are split, and every request is answered with its usual score."""

from __future__ import annotations

from itertools import chain

from tests.gpu import kit as kits
from tests.gpu.findings import Table
from tests.gpu.kit import Kit, Served
from tests.gpu.texts import Texts

MODEL = "minilm-l12"
# Of the arena, in MiB: one of these holds the weights and the blocks, and no whole pass.
LIMITS = (640, 448, 320, 224, 160, 112)
BLOCKS = "block_memory_mb = 64"
SAMPLES = 512
TOLERANCE = 1e-3
RAN_OUT = "karat_forward_passes_out_of_memory_total"


def run(kit: Kit, table: Table, _served: Served | None) -> None:
    """The same samples under every limit, beside none."""
    limits = LIMITS if kit.on_gpu else LIMITS[:1]
    for limit in limits:
        provider = f"{{ {kit.provider} = {{ memory_limit_mb = {limit} }} }}" if kit.on_gpu else kit.provider
        repository = kit.linked("memory", {f"at-{limit}": MODEL}, provider=provider, options=BLOCKS)
    kit.linked("memory", {"unbounded": MODEL}, options=BLOCKS)
    texts = Texts(kit.shapes[MODEL], seed=7)
    samples = texts.mixed(32 if kit.tiny else SAMPLES)
    with kits.serving(kit, repository) as served:
        expected = served.scores("unbounded", samples)
        split = answered = 0
        for limit in limits:
            name = f"at-{limit}"
            card = served.card(name)
            if card["status"] != "ready":
                table.add(f"arena of {limit} MiB", f"not served: {card.get('reason') or card['status']}"[:200])
                continue
            try:
                found = list(chain.from_iterable(served.scores(name, samples) for _ in range(2)))
            except RuntimeError as error:
                table.must(f"arena of {limit} MiB", str(error)[:200], "answers everything", holds=False)
                continue
            ran_out = int(served.metrics(name)[RAN_OUT])
            largest = max(abs(one - other) for one, other in zip(found, [*expected, *expected], strict=True))
            told = f"ran out {ran_out} times, scores within {largest:.1e}"
            table.must(f"arena of {limit} MiB", told, f"<= {TOLERANCE:g}", holds=largest <= TOLERANCE)
            answered += 1
            split += ran_out > 0
    if kit.on_gpu:
        table.add("limits at which passes were split", f"{split} of {answered} served", ">= 1", holds=split > 0)
    else:
        table.add("limits at which passes were split", "not measured: only a GPU's memory is bounded")
