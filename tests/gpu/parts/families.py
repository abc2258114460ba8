"""Every checkpoint that was recorded with Transformers' scores, on the GPU: each family's attention, norms, windows,
rotations and heads, as the GPU's own operators compute them."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from loadtest import wire
from tests.gpu import kit as kits
from tests.gpu.findings import Table
from tests.gpu.kit import Kit, Served

# What 16 bits may change of a small random model's score; 32 bits in the processor's order may change this much.
ROUNDED, EXACT = 5e-2, 1e-4
# Each model has little to keep, and there are many of them.
SCHEDULING = "[scheduling]\nblock_memory_mb = 16\n"
TINY = ("bert", "gemma2-window", "llama3", "phi3-longrope", "qwen2-math-prm", "qwen3")


def run(kit: Kit, table: Table, _served: Served | None) -> None:
    """Serves them all, and compares."""
    folders = sorted(path.parent for path in kit.recorded.glob("*/expected.json"))
    if kit.tiny:
        folders = [folder for folder in folders if folder.name in TINY]
    repository = kit.work / "repositories" / "families"
    with ThreadPoolExecutor(os.cpu_count() or 1) as workers:
        list(workers.map(lambda folder: _prepare(kit, folder, repository / folder.name), folders))
    with kits.serving(kit, repository) as served:
        differences: dict[str, float] = {}
        failed: dict[str, str] = {}
        packed = set()
        for folder in folders:
            card = served.card(folder.name)
            if card["status"] != "ready":
                failed[folder.name] = card.get("reason") or card["status"]
                continue
            packed |= {folder.name} if card["graphs"][0].get("packed") else set()
            try:
                differences[folder.name] = _difference(served, folder)
            except RuntimeError as error:
                failed[folder.name] = str(error)
    _tell(kit, table, differences, failed, packed)


def _tell(kit: Kit, table: Table, differences: dict[str, float], failed: dict[str, str], packed: set[str]) -> None:
    table.keep("differences", differences)
    table.keep("failed", failed)
    table.must(
        "checkpoints that aren't served",
        "; ".join(f"{n}: {why}" for n, why in failed.items()) or "none",
        "none",
        holds=not failed,
    )
    for what, names, tolerance in (
        ("packed rows", packed, ROUNDED if kit.on_gpu else EXACT),
        ("padded rows", set(differences) - packed, EXACT * (10 if kit.on_gpu else 1)),
    ):
        worst = sorted(names, key=lambda name: -differences.get(name, 0.0))[:3]
        told = ", ".join(f"{name} {differences[name]:.1e}" for name in worst if name in differences)
        holds = all(differences.get(name, 0.0) <= tolerance for name in names)
        table.must(f"{what}: {len(names)} checkpoints, worst", told or "none", f"<= {tolerance:g}", holds=holds)


def _prepare(kit: Kit, source: Path, target: Path) -> None:
    """The checkpoint on the GPU, held to nothing: 16 bits give other scores than those that were recorded."""
    if not target.is_dir():
        shutil.copytree(source, target)
    (target / "expected.json").unlink(missing_ok=True)
    manifest = target / "model.toml"
    if not manifest.is_file():
        command = [str(kit.karat), "inspect", str(target), "--write", "--onnxruntime", str(kit.onnxruntime)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not manifest.is_file():
            raise RuntimeError(f"{source.name}: {done.stderr.strip()}")
    text = re.sub(r"^providers = .*\n", "", manifest.read_text(), flags=re.MULTILINE)
    form = 'form = "packed"\n' if kit.provider == "cpu" else ""
    if form and "form = " not in text:
        text = text.replace("[graph]\n", f"[graph]\n{form}")
    if "[scheduling]" not in text:
        text += f"\n{SCHEDULING}"
    manifest.write_text(f'providers = ["{kit.provider}"]\n{text}')


def _difference(served: Served, folder: Path) -> float:
    """The largest of a checkpoint's cases, each alone and all together."""
    cases = json.loads((folder / "expected.json").read_text())["cases"]
    largest = 0.0
    for together in [*([case] for case in cases), cases]:
        body = {"model": folder.name, "inputs": [_input(case) for case in together], "include": ["steps"]}
        results = wire.post(served.url, "/v1/score", body)["results"]
        for case, result in zip(together, results, strict=True):
            for found, wanted in zip(_found(result), _wanted(case), strict=True):
                difference = abs(found - wanted)
                largest = max(largest, difference if math.isfinite(difference) else math.inf)
    return largest


def _input(case: dict[str, Any]) -> dict[str, Any]:
    if "messages" in case:
        return {"messages": case["messages"]}
    return {name: case[name] for name in ("prompt", "response", "text") if name in case}


def _wanted(case: dict[str, Any]) -> list[float]:
    return list(case["steps"]) if "steps" in case else [case["reward"]]


def _found(result: dict[str, Any]) -> list[float]:
    steps = result.get("steps")
    return list(steps["scores"]) if steps else [result["raw"]]
