"""What several parts measure alike: a server's rate under load, beside Transformers and beside no server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.gpu import kit as kits
from tests.gpu.findings import Table
from tests.gpu.kit import Kit, Load, Served

BUSY_PERCENT = 90.0
# From here on it is the generator that bounds a rate.
GENERATOR_BOUND = 0.9


def under_load(
    kit: Kit, table: Table, served: Served, model: str, workloads: Sequence[Path], clients: int, seconds: float
) -> Load:
    """The rate of so many clients, after a moment that isn't counted; tells what bounds it and how busy the GPU is."""
    if kit.tiny:
        clients = min(clients, 8)
    kits.closed(kit, served, model, workloads, clients, kit.seconds(1.5))
    with kits.watching(served, model) as readings:
        load = kits.closed(kit, served, model, workloads, clients, kit.seconds(seconds))
    name = f"{clients} clients"
    table.add(f"{name}: tokens/s", f"{load.tokens_per_second:,.0f}")
    table.add(f"{name}: p50, p99", f"{load.p50_ms:.1f} ms, {load.p99_ms:.1f} ms")
    told = f"generator {load.generator_busy:.2f} of a core, server {load.server_cores:.1f} cores"
    bound = "; the GENERATOR BOUNDS the rate" if load.generator_busy > GENERATOR_BOUND else ""
    table.add(f"{name}: processor", told + bound)
    if readings.busy is None:
        table.add(f"{name}: GPU busy", "not measured: nvidia-smi tells nothing here")
    else:
        wanted = f">= {BUSY_PERCENT:.0f} %"
        table.add(f"{name}: GPU busy", f"{readings.busy:.0f} %", wanted, holds=readings.busy >= BUSY_PERCENT)
    table.add(f"{name}: time in passes, by karat's count", f"{readings.passes:.0%}")
    table.keep(name, {**asdict(load), "busy_percent": readings.busy, "in_passes": readings.passes})
    return load


def beside_transformers(
    kit: Kit, table: Table, folder: Path, workload: Path, jobs: Sequence[str], seconds: float
) -> dict[str, Any]:
    """Transformers' rates, or nothing and a row that says why."""
    try:
        found = kits.peer(kit, folder, workload, jobs, kit.seconds(seconds))
    except kits.Lacking as lacking:
        table.add("Transformers", str(lacking))
        return {}
    for job in jobs:
        if job in ("sorted", "arrival"):
            table.add(f"Transformers, batches of 32, {job}: tokens/s", f"{found[job]:,.0f}")
    table.keep("transformers", found)
    return found
