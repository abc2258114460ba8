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

# What bfloat16 may change of a small random model's score, or so many times what rounding alone changes on the
# processor; what half precision may, relative to the score or to 1; and what 32 bits may.
ROUNDED, TIMES, HALF, EXACT = 5e-2, 4.0, 1e-2, 1e-4
# Each model has little to keep, and there are many of them.
SCHEDULING = "[scheduling]\nblock_memory_mb = 16\n"
TINY = (
    "bert",
    "deberta-v3",
    "gemma2-window",
    "llama3",
    "mixtral",
    "modernbert",
    "phi3-longrope",
    "qwen2-math-prm",
    "qwen3",
)
# Those that have no packed rows in any format.
PADDED = ("deberta-v2-convolution", "deberta-v3", "modernbert", "modernbert-mean")


@dataclass
class Found:
    """What a server made of the checkpoints."""

    differences: dict[str, float] = field(default_factory=dict)
    # The same relative to the scores, or to 1 where they are less.
    shares: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    packed: set[str] = field(default_factory=set)


def run(kit: Kit, table: Table, _served: Served | None) -> None:
    """Serves them all, and compares."""
    folders = sorted(path.parent for path in kit.recorded.glob("*/expected.json"))
    if kit.tiny:
        folders = [folder for folder in folders if folder.name in TINY]
    rounded = _found(kit, folders, "families-rounded", "cpu", lambda _: "rounded")
    found = _found(kit, folders, "families", kit.provider, lambda name: None if kit.on_gpu else _form(name))
    table.keep("differences", found.differences)
    table.keep("by rounding alone", rounded.differences)
    table.keep("failed", found.failed)
    told = "; ".join(f"{name}: {why}" for name, why in found.failed.items())
    table.must("checkpoints that aren't served", told or "none", "none", holds=not found.failed)

    def rounding(name: str) -> float:
        return max(ROUNDED, TIMES * rounded.differences.get(name, 0.0)) if kit.on_gpu else EXACT

    wanted = f"<= {ROUNDED:g}, or {TIMES:g} x by rounding" if kit.on_gpu else f"<= {EXACT:g}"
    packed = {name: found.differences[name] for name in found.differences.keys() & found.packed}
    _tell(table, "packed rows", packed, wanted, rounding)
    padded = {name: found.shares[name] for name in found.shares.keys() - found.packed}
    _tell(table, "padded rows in half precision, relative", padded, f"<= {HALF:g}", lambda _: HALF)


def _form(name: str) -> str:
    """What a GPU takes of a checkpoint, as a processor is asked for it."""
    return "half_rows" if name in PADDED else "packed"


def _found(kit: Kit, folders: Sequence[Path], name: str, provider: str, form: Callable[[str], str | None]) -> Found:
    repository = kit.work / "repositories" / name
    with ThreadPoolExecutor(os.cpu_count() or 1) as workers:
        jobs = [
            workers.submit(_prepare, kit, folder, repository / folder.name, provider, form(folder.name))
            for folder in folders
        ]
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
                found.differences[folder.name], found.shares[folder.name] = _difference(served, folder)
            except RuntimeError as error:
                found.failed[folder.name] = str(error)
    return found


def _tell(
    table: Table, what: str, differences: dict[str, float], wanted: str, tolerance: Callable[[str], float]
) -> None:
    """A row of those that have a form: the three worst."""
    worst = sorted(differences, key=lambda name: differences[name] / tolerance(name), reverse=True)
    told = ", ".join(f"{name} {differences[name]:.1e}" for name in worst[:3])
    holds = all(difference <= tolerance(name) for name, difference in differences.items())
    table.must(f"{what}: {len(differences)} checkpoints, worst", told or "none", wanted, holds=holds)


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


def _difference(served: Served, folder: Path) -> tuple[float, float]:
    """The largest of a checkpoint's cases, each alone and all together; and the largest relative one."""
    cases = json.loads((folder / "expected.json").read_text())["cases"]
    largest = share = 0.0
    for together in [*([case] for case in cases), cases]:
        body = {"model": folder.name, "inputs": [_input(case) for case in together], "include": ["steps"]}
        results = wire.post(served.url, "/v1/score", body)["results"]
        for case, result in zip(together, results, strict=True):
            for found, wanted in zip(_scores(result), _wanted(case), strict=True):
                difference = abs(found - wanted) if math.isfinite(found) else math.inf
                largest, share = max(largest, difference), max(share, difference / max(1.0, abs(wanted)))
    return largest, share


def _input(case: dict[str, Any]) -> dict[str, Any]:
    if "messages" in case:
        return {"messages": case["messages"]}
    return {name: case[name] for name in ("prompt", "response", "text") if name in case}


def _wanted(case: dict[str, Any]) -> list[float]:
    return list(case["steps"]) if "steps" in case else [case["reward"]]


def _scores(result: dict[str, Any]) -> list[float]:
    steps = result.get("steps")
    return list(steps["scores"]) if steps else [result["raw"]]
