"""Encoders over HTTP, beside Transformers and, where they are packed, beside their own loop without a server."""

from __future__ import annotations

from tests.gpu import kit as kits
from tests.gpu.findings import Table
from tests.gpu.kit import Kit, Served
from tests.gpu.parts import rates

SAMPLES = 4096
# The rows of a pass that a server takes by default.
ROWS = 1 << 15
CLIENTS, FEW = 256, 64
OVER_TRANSFORMERS, OVER_LOOP = 1.5, 0.85
ONE_CLIENT_MS = 3.0


def minilm(kit: Kit, table: Table, served: Served | None) -> None:
    """What must be reached with the MiniLM-L12 shape."""
    assert served
    name = "minilm-l12"
    one = kits.closed(kit, served, name, kit.workload(name, SAMPLES), 1, kit.seconds(2.0))
    table.at_most("one client, one sample: p50", one.p50_ms, ONE_CLIENT_MS, "ms")
    rate = _rate(kit, table, served, name, (FEW, CLIENTS), 6.0)
    loop = kits.packed_loop(kit, kit.checkpoint(name), kit.workload(name, SAMPLES)[0], ROWS)
    table.add("packed loop without a server: tokens/s", f"{loop['tokens_per_second']:,.0f}")
    table.keep("loop", loop)
    table.at_least("karat / packed loop", rate / loop["tokens_per_second"], OVER_LOOP)
    _beside(kit, table, name, rate, OVER_TRANSFORMERS)


def roberta(kit: Kit, table: Table, served: Served | None) -> None:
    """The RoBERTa-large shape."""
    assert served
    name = "roberta-large"
    _beside(kit, table, name, _rate(kit, table, served, name, (FEW,), 4.0), None)


def deberta(kit: Kit, table: Table, served: Served | None) -> None:
    """The DeBERTa-v3-base shape, whose rows are padded."""
    _padded(kit, table, served, "deberta-v3-base")


def modernbert(kit: Kit, table: Table, served: Served | None) -> None:
    """The ModernBERT-base shape, whose rows are padded."""
    _padded(kit, table, served, "modernbert-base")


def _padded(kit: Kit, table: Table, served: Served | None, name: str) -> None:
    assert served
    one = kits.closed(kit, served, name, kit.workload(name, SAMPLES), 1, kit.seconds(2.0))
    table.add("one client, one sample: p50", f"{one.p50_ms:.1f} ms")
    _beside(kit, table, name, _rate(kit, table, served, name, (FEW,), 4.0), None)


def _rate(kit: Kit, table: Table, served: Served, name: str, clients: tuple[int, ...], seconds: float) -> float:
    """The rate of the most clients."""
    rate = 0.0
    for count in clients:
        workloads = kit.workload(name, SAMPLES, kit.generators(count))
        rate = rates.under_load(kit, table, served, name, workloads, count, seconds).tokens_per_second
    return rate


def _beside(kit: Kit, table: Table, name: str, rate: float, wanted: float | None) -> None:
    workload = kit.workload(name, SAMPLES // 2)[0]
    found = rates.beside_transformers(kit, table, kit.checkpoint(name), workload, ["sorted", "arrival"], 3.0)
    if not found:
        return
    if wanted is None:
        table.add("karat / Transformers sorted", f"{rate / found['sorted']:.2f}")
    else:
        table.at_least("karat / Transformers sorted", rate / found["sorted"], wanted)
    table.add("karat / Transformers in order of arrival", f"{rate / found['arrival']:.2f}")
