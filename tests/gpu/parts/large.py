"""Decoders over HTTP, beside Transformers and the speed of the GPU's products; and the memory that they hold."""

from __future__ import annotations

from tests.gpu import kit as kits
from tests.gpu.findings import Table
from tests.gpu.kit import Kit, Served
from tests.gpu.parts import rates
from tests.gpu.shapes import layer_parameters

CLIENTS = 64
SAMPLES = 2048
# Of these Transformers computes each at least twice.
BESIDE = {"llama-8b": 192, "llama-1b": 768}
OVER_TRANSFORMERS, CEILING_SHARE = 1.4, 0.75
# What memory may grow by under load: passes of other sizes leave holes in an arena. And what may be held beyond weights
# and blocks: CUDA itself, the libraries' workspaces, and the widest pass.
GROWTH, BEYOND_GIB = 1.1, 4.0


def llama_8b(kit: Kit, table: Table, served: Served | None) -> None:
    """What must be reached with the 8 B shape."""
    assert served
    name = "llama-8b"
    table.add("seconds until ready", f"{served.seconds:.1f}")
    before = kits.gpu_memory()
    rate = _rate(kit, table, served, name, 8.0)
    _memory(kit, table, served, before)
    _beside(kit, table, name, rate, judged=True)


def llama_1b(kit: Kit, table: Table, served: Served | None) -> None:
    """The 1 B shape."""
    assert served
    name = "llama-1b"
    _beside(kit, table, name, _rate(kit, table, served, name, 4.0), judged=False)


def _rate(kit: Kit, table: Table, served: Served, name: str, seconds: float) -> float:
    workloads = kit.workload(name, SAMPLES, kit.generators(CLIENTS))
    return rates.under_load(kit, table, served, name, workloads, CLIENTS, seconds).tokens_per_second


def _memory(kit: Kit, table: Table, served: Served, before: int | None) -> None:
    """What the server holds: weights, blocks, and what passes take, which must not grow without end."""
    after = kits.gpu_memory()
    weights = sum(graph["memory"]["weight_bytes"] for graph in served.card("llama-8b")["graphs"])
    table.add("weights, blocks", f"{weights / 2**30:.1f} GiB, {kit.block_memory / 2**30:.1f} GiB")
    if before is None or after is None:
        table.add("GPU memory", "not measured: nvidia-smi tells nothing here")
        return
    table.keep("memory", {"ready": before, "after_load": after})
    table.add("GPU memory once ready, after the load", f"{before / 2**30:.1f} GiB, {after / 2**30:.1f} GiB")
    table.at_most("beyond weights and blocks", (after - weights - kit.block_memory) / 2**30, BEYOND_GIB, "GiB")
    growth = after / before
    table.add("GPU memory after the load / once ready", f"{growth:.2f}", f"<= {GROWTH}", holds=growth <= GROWTH)


def _beside(kit: Kit, table: Table, name: str, rate: float, *, judged: bool) -> None:
    workload = kit.workload(name, BESIDE[name])[0]
    found = rates.beside_transformers(kit, table, kit.checkpoint(name), workload, ["gemm", "sorted"], 4.0)
    operations = 2.0 * layer_parameters(kit.shapes[name]) * rate
    table.add("karat: TFLOP/s in the layers' products", f"{operations / 1e12:.0f}")
    if not found:
        return
    table.add("bf16 products at best: TFLOP/s", f"{found['gemm'] / 1e12:.0f}")
    ratio, share = rate / found["sorted"], operations / found["gemm"]
    if judged:
        table.at_least("karat / Transformers sorted", ratio, OVER_TRANSFORMERS)
        table.at_least("share of the products' ceiling", share, CEILING_SHARE)
    else:
        table.add("karat / Transformers sorted", f"{ratio:.2f}")
        table.add("share of the products' ceiling", f"{share:.2f}")
