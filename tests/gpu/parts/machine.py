"""What the machine has, and whether the provider starts on it: where it doesn't, nothing else can be measured."""

from __future__ import annotations

import json
import os
import subprocess

from tests.gpu.findings import Table
from tests.gpu.kit import Kit, Served


def run(kit: Kit, table: Table, _served: Served | None) -> None:
    """Asks `karat doctor`."""
    command = [str(kit.karat), "doctor", "--onnxruntime", str(kit.onnxruntime), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        table.must("karat doctor", done.stderr.strip() or "failed", "runs", holds=False)
        return
    found = json.loads(done.stdout)
    table.keep("doctor", found)
    table.add("GPUs", ", ".join(found["graphics"]["gpus"]) or "none")
    table.add("driver", found["graphics"]["driver"] or "none")
    table.add("cores", str(os.cpu_count()))
    trial = next(trial for trial in found["providers"] if trial["provider"] == kit.provider)
    told = "" if trial["starts"] else f": {trial['reason']} {trial['advice']}"
    table.must("provider", f"{kit.provider}{told}", "starts", holds=trial["starts"])
