"""Every checkpoint that was recorded with Transformers' scores, on the GPU: each family's attention, norms, windows,
rotations and heads, as the GPU's own operators compute them."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtest import wire
from tests.gpu import kit as kits
from tests.gpu.findings import Table
from tests.gpu.kit import Kit, Served

# What 16 bits may change of a small random model's score, or so many times what rounding alone changes on the
# processor; and what 32 bits may, in another order and in the processor's.
ROUNDED, TIMES, OTHER_ORDER, EXACT = 5e-2, 4.0, 1e-3, 1e-4
# Each model has little to keep, and there are many of them.
SCHEDULING = "[scheduling]\nblock_memory_mb = 16\n"
TINY = ("bert", "gemma2-window", "llama3", "phi3-longrope", "qwen2-math-prm", "qwen3")


@dataclass
class Found:
    """What a server made of the checkpoints."""

    differences: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    packed: set[str] = field(default_factory=set)


def run(kit: Kit, table: Table, _served: Served | None) -> None:
    """Serves them all, and compares."""
    folders = sorted(path.parent for path in kit.recorded.glob("*/expected.json"))
    if kit.tiny:
        folders = [folder for folder in folders if folder.name in TINY]
    rounded = _found(kit, folders, "families-rounded", "cpu", "rounded")
    found = _found(kit, folders, "families", kit.provider, None if kit.on_gpu else "packed")
    table.keep("differences", found.differences)
    table.keep("by rounding alone", rounded.differences)
    table.keep("failed", found.failed)
    told = "; ".join(f"{name}: {why}" for name, why in found.failed.items())
    table.must("checkpoints that aren't served", told or "none", "none", holds=not found.failed)

    def rounding(name: str) -> float:
        return max(ROUNDED, TIMES * rounded.differences.get(name, 0.0)) if kit.on_gpu else EXACT

    padded = set(found.differences) - found.packed
    wanted = f"<= {ROUNDED:g}, or {TIMES:g} x by rounding" if kit.on_gpu else f"<= {EXACT:g}"
    _tell(table, "packed rows", found, found.packed & set(found.differences), wanted, rounding)
    order = OTHER_ORDER if kit.on_gpu else EXACT
    _tell(table, "padded rows", found, padded, f"<= {order:g}", lambda _: order)


def _found(kit: Kit, folders: Sequence[Path], name: str, provider: str, form: str | None) -> Found:
    repository = kit.work / "repositories" / name
    with ThreadPoolExecutor(os.cpu_count() or 1) as workers:
        jobs = [workers.submit(_prepare, kit, folder, repository / folder.name, provider, form) for folder in folders]
        for job in jobs:
            job.result()
    found = Found()
    with kits.serving(kit, repository) as served:
        for folder in folders:
            card = served.card(folder.name)
            if card["status"] != "ready":
                found.failed[folder.name] = card.get("reason") or card["status"]
                continue
            found.packed |= {folder.name} if card["graphs"][0].get("packed") else set()
            try:
                found.differences[folder.name] = _difference(served, folder)
            except RuntimeError as error:
                found.failed[folder.name] = str(error)
    return found


def _tell(
    table: Table, what: str, found: Found, names: set[str], wanted: str, tolerance: Callable[[str], float]
) -> None:
    """A row of those that have a form: the three worst."""
    worst = sorted(names, key=lambda name: found.differences[name] / tolerance(name), reverse=True)
    told = ", ".join(f"{name} {found.differences[name]:.1e}" for name in worst[:3])
    holds = all(found.differences[name] <= tolerance(name) for name in names)
    table.must(f"{what}: {len(names)} checkpoints, worst", told or "none", wanted, holds=holds)


def _prepare(kit: Kit, source: Path, target: Path, provider: str, form: str | None) -> None:
    """The checkpoint in that form, held to nothing: 16 bits give other scores than those that were recorded."""
    if not target.is_dir():
        shutil.copytree(source, target)
    (target / "expected.json").unlink(missing_ok=True)
    manifest = target / "model.toml"
    if not manifest.is_file():
        command = [str(kit.karat), "inspect", str(target), "--write", "--onnxruntime", str(kit.onnxruntime)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not manifest.is_file():
            raise RuntimeError(f"{source.name}: {done.stderr.strip()}")
    text = re.sub(r"^(providers|form) = .*\n", "", manifest.read_text(), flags=re.MULTILINE)
    if form:
        text = text.replace("[graph]\n", f'[graph]\nform = "{form}"\n')
    if "[scheduling]" not in text:
        text += f"\n{SCHEDULING}"
    manifest.write_text(f'providers = ["{provider}"]\n{text}')


def _difference(served: Served, folder: Path) -> float:
    """The largest of a checkpoint's cases, each alone and all together."""
    cases = json.loads((folder / "expected.json").read_text())["cases"]
    largest = 0.0
    for together in [*([case] for case in cases), cases]:
        body = {"model": folder.name, "inputs": [_input(case) for case in together], "include": ["steps"]}
        results = wire.post(served.url, "/v1/score", body)["results"]
        for case, result in zip(together, results, strict=True):
            for found, wanted in zip(_scores(result), _wanted(case), strict=True):
                difference = abs(found - wanted)
                largest = max(largest, difference if math.isfinite(difference) else math.inf)
    return largest


def _input(case: dict[str, Any]) -> dict[str, Any]:
    if "messages" in case:
        return {"messages": case["messages"]}
    return {name: case[name] for name in ("prompt", "response", "text") if name in case}


def _wanted(case: dict[str, Any]) -> list[float]:
    return list(case["steps"]) if "steps" in case else [case["reward"]]


def _scores(result: dict[str, Any]) -> list[float]:
    steps = result.get("steps")
    return list(steps["scores"]) if steps else [result["raw"]]
