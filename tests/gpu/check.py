"""Checks karat on a GPU: scores against the processor's, speed against other ways to run the model.

    python3 check.py                       # on a GPU machine, in the bundle's folder
    make gpu-check PROVIDER=cpu QUICK=1    # its logic, on any machine

Only the standard library is needed; PyTorch Transformers is compared where this
Python has it. Prints a table last, writes `results.json`, and fails when a score
is off. What can't be measured here, for lack of a piece, gets a line that says
so. Speed targets are told, not enforced: they hold for one kind of GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest import repository as repositories
from loadtest import wire
from tests.gpu import pieces
from tests.gpu.findings import Table, compare
from tools.server_process import free_address, running

# TensorRT builds engines for minutes.
READY_SECONDS = 1800.0
SCORE_SECONDS = 600.0
MODEL = "relevance"
CLIENTS = 256
# What scores may differ from the processor's in fp32.
TOLERANCE = {"fp32": 1e-3, "fp16": 2e-2}
BUDGETS = (4096, 8192, 16_384, 32_768)
BUSY_TARGET, OFFLINE_TARGET, TRANSFORMERS_TARGET, SHARING_TARGET = 85.0, 0.9, 2.0, 3.0
# Tokens of the prompt, candidates, tokens of each: the first row has the target.
SHARING_SHAPES = ["1024x16x128", "1024x16x32", "512x16x128", "512x4x128"]
# In the order of preference: random weights cost as much as trained ones, and are no model that anyone serves.
SHARING_MODELS = ["smol-reward", "llama-shared"]
# Beside the program that runs, in a bundle; at the top of a checkout.
SOURCES = Path(repositories.__file__).resolve().parent.parent


@dataclass(frozen=True)
class Kit:
    """Where everything is."""

    karat: Path
    loadtest: Path
    onnxruntime: Path
    models: dict[str, Path]
    # A repository with one of `SHARING_MODELS`, or nothing.
    decoders: Path
    workload: Path
    work: Path
    provider: str
    quick: bool

    @property
    def samples(self) -> list[dict[str, Any]]:
        lines = self.workload.read_text().splitlines()
        return [json.loads(line) for line in lines[: 64 if self.quick else None]]


@contextlib.contextmanager
def server(kit: Kit, precision: str, provider: str, *flags: str) -> Iterator[str]:
    """karat with that model on that provider; gives its address."""
    repository = kit.work / f"{precision}-{provider}"
    repositories.on_provider(kit.models[precision], repository / MODEL, provider)
    address = free_address()
    url = f"http://{address}"
    command = [
        *(str(kit.karat), "serve", "--models", str(repository), "--listen", address),
        *("--onnxruntime", str(kit.onnxruntime), "--cache-mb", "0", "--strict", *flags),
    ]
    with (
        (kit.work / f"{precision}-{provider}.log").open("w+b") as log,
        running(command, lambda: _ready(url), log, start_seconds=READY_SECONDS),
    ):
        yield url


def _ready(url: str) -> bool:
    try:
        # The server is ready before a model whose engines are being built.
        return bool(_card(url)["status"] == "ready")
    except (OSError, RuntimeError):
        return False


def _card(url: str) -> dict[str, Any]:
    return json.loads(wire.get(url, f"/v1/models/{MODEL}"))


def scores(url: str, samples: list[dict[str, Any]], batch: int = 64) -> list[float]:
    """The reward of each sample."""
    rewards: list[float] = []
    for start in range(0, len(samples), batch):
        inputs = [
            {"prompt": sample["prompt"], "response": sample["response"]} for sample in samples[start : start + batch]
        ]
        reply = wire.post(url, "/v1/score", {"model": MODEL, "inputs": inputs}, SCORE_SECONDS)
        rewards += [result["reward"] for result in reply["results"]]
    return rewards


def check_doctor(kit: Kit, table: Table) -> dict[str, Any]:
    """What the machine has; fails at once when the provider can't start."""
    command = [str(kit.karat), "doctor", "--onnxruntime", str(kit.onnxruntime)]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    found = json.loads(done.stdout)
    table.add("GPUs", ", ".join(found["graphics"]["gpus"]) or "none")
    table.add("driver", found["graphics"]["driver"] or "none")
    trial = next(trial for trial in found["providers"] if trial["provider"] == kit.provider)
    table.must("provider", kit.provider, "starts", holds=trial["starts"])
    if not trial["starts"]:
        raise SystemExit(f"{trial['reason']}\n{trial['advice']}")
    return found


def check_parity(kit: Kit, table: Table) -> dict[str, Any]:
    """fp32 and fp16 on the provider against fp32 on the processor."""
    samples = kit.samples[: 64 if kit.quick else 512]
    groups = [sample["group"] for sample in samples]
    with server(kit, "fp32", "cpu", "--calibration-seconds", "0") as url:
        expected = scores(url, samples)
    found = {}
    for precision, tolerance in TOLERANCE.items():
        with server(kit, precision, kit.provider, "--calibration-seconds", "0") as url:
            rewards = scores(url, samples)
            # Other company, other padding: the same scores, or a client's score depends on its neighbours.
            alone = scores(url, samples[:16], batch=1)
        found[precision] = compare(expected, rewards, groups, tolerance)
        table.must(
            f"{precision}: largest difference from the processor's fp32",
            f"{found[precision].largest:.1e}",
            f"<= {tolerance:.0e}",
            holds=found[precision].largest <= tolerance,
        )
        table.must(
            f"{precision}: clear pairs in another order",
            f"{found[precision].swapped} of {found[precision].clear}",
            "0",
            holds=found[precision].swapped == 0,
        )
        moved = max(abs(one - other) for one, other in zip(alone, rewards, strict=False))
        table.must(
            f"{precision}: largest difference between alone and in a batch",
            f"{moved:.1e}",
            f"<= {tolerance:.0e}",
            holds=moved <= tolerance,
        )
    return {precision: vars(comparison) for precision, comparison in found.items()}


@contextlib.contextmanager
def busy() -> Iterator[list[float]]:
    """Samples how busy the first GPU is, in percent; stays empty where there is none."""
    readings: list[float] = []
    command = [
        *("nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"),
        *("--id=0", "--loop-ms=200"),
    ]
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    except FileNotFoundError:
        yield readings
        return
    try:
        yield readings
    finally:
        process.terminate()
        output, _ = process.communicate()
        readings += [float(line) for line in output.splitlines() if line.strip().isdigit()]


def check_speed(kit: Kit, table: Table) -> dict[str, Any]:
    """The server under load, the best static plan, and Transformers, all on the same samples."""
    precision = "fp32" if kit.provider == "cpu" else "fp16"
    results: dict[str, Any] = {"precision": precision}
    seconds = 4.0 if kit.quick else 20.0
    clients = 16 if kit.quick else CLIENTS
    flags = ("--calibration-seconds", "1" if kit.quick else "10")
    with server(kit, precision, kit.provider, *flags) as url:
        card = _card(url)
        results["calibration"] = card["graphs"][0]["calibration"]
        load = [
            *("closed", "--url", url, "--workload", str(kit.workload)),
            *("--clients", str(clients), "--seconds", str(seconds)),
        ]
        _loadtest(kit, load)
        before = _metrics(url)
        with busy() as readings:
            results["karat"] = _loadtest(kit, load)
        after = _metrics(url)
    grown = {name: after[name] - before[name] for name in after}
    positions = grown["karat_tokens_total"] + grown["karat_padding_tokens_total"]
    results["padding"] = grown["karat_padding_tokens_total"] / max(positions, 1)
    rate = results["karat"]["tokens_per_second"]
    table.add(f"karat, {precision}, {clients} clients, tokens/s", f"{rate:,.0f}")
    table.add("padding", f"{results['padding']:.1%}", "< 10%", holds=results["padding"] < 0.1)
    if readings:
        # The first and last readings are of a load that starts or ends.
        middle = readings[2:-2] or readings
        results["busy_percent"] = statistics.fmean(middle)
        table.add(
            "GPU busy",
            f"{results['busy_percent']:.0f} %",
            f">= {BUSY_TARGET:.0f} %",
            holds=results["busy_percent"] >= BUSY_TARGET,
        )
    else:
        table.add("GPU busy", "not measured: nvidia-smi tells nothing here")

    plans = {}
    for budget in BUDGETS[:1] if kit.quick else BUDGETS:
        for sessions in (1, 2):
            report = _loadtest(
                kit,
                [
                    *("offline", "--graph", str(kit.models[precision] / "model.onnx")),
                    *("--workload", str(kit.workload), "--samples", str(len(kit.samples))),
                    *("--onnxruntime", str(kit.onnxruntime), "--provider", kit.provider),
                    *("--sessions", str(sessions), "--budget", str(budget)),
                ],
            )
            plans[f"{sessions} x {budget}"] = report["tokens_per_second"]
    best = max(plans, key=lambda plan: plans[plan])
    results["offline"] = plans
    ratio = rate / plans[best]
    wanted = f">= {OFFLINE_TARGET}"
    table.add(f"best offline plan ({best}), tokens/s", f"{plans[best]:,.0f}")
    table.add("karat / best offline plan", f"{ratio:.2f}", wanted, holds=ratio >= OFFLINE_TARGET)

    results["transformers"] = transformers_rate(kit)
    if results["transformers"] is None:
        table.add("PyTorch Transformers", "not measured: not in this Python, or no GPU")
    else:
        other = results["transformers"]["tokens_per_second"]
        table.add("PyTorch Transformers, fp16, batches of 32, tokens/s", f"{other:,.0f}")
        table.add(
            "karat / Transformers",
            f"{rate / other:.1f}",
            f">= {TRANSFORMERS_TARGET:.0f}",
            holds=rate / other >= TRANSFORMERS_TARGET,
        )
    results["python"] = python_plans(kit, precision, plans)
    if isinstance(results["python"], str):
        table.add("best offline plan in Python", results["python"])
    else:
        best = max(results["python"], key=lambda plan: results["python"][plan])
        ratio = rate / results["python"][best]
        table.add(f"best offline plan in Python ({best}), tokens/s", f"{results['python'][best]:,.0f}")
        table.add("karat / best offline plan in Python", f"{ratio:.2f}", wanted, holds=ratio >= OFFLINE_TARGET)
    return results


def python_plans(kit: Kit, precision: str, known: dict[str, float]) -> dict[str, float] | str:
    """The two best of the known plans by Python's own ONNX Runtime, or why there are none."""
    plans = {}
    for plan in sorted(known, key=lambda plan: -known[plan])[: 1 if kit.quick else 2]:
        sessions, budget = plan.split(" x ")
        command = [
            *(sys.executable, "-m", "loadtest.offline"),
            *("--graph", str(kit.models[precision] / "model.onnx")),
            *("--workload", str(kit.workload), "--samples", str(len(kit.samples))),
            *("--sessions", sessions, "--budget", budget, "--provider", kit.provider),
        ]
        try:
            plans[plan] = json.loads(_python(command))["tokens_per_second"]
        except subprocess.CalledProcessError as error:
            return f"not measured: {_last_line(error.stderr)}"
    return plans


def check_sharing(kit: Kit, table: Table) -> dict[str, Any]:
    """What sharing a prompt among its candidates saves, in fp32, on the same provider."""
    found = [name for name in SHARING_MODELS if (kit.decoders / name / "model.toml").is_file()]
    if not found:
        table.add("prefix sharing", f"not measured: {kit.decoders} holds no decoder")
        return {}
    # TensorRT takes no graph that gives keys and values.
    provider = "cuda" if kit.provider == "tensorrt" else kit.provider
    output = kit.work / "sharing.json"
    shapes = SHARING_SHAPES[:1] if kit.quick else SHARING_SHAPES
    command = [
        *(sys.executable, "-m", "loadtest.decoder", "--server", str(kit.karat)),
        *("--onnxruntime", str(kit.onnxruntime), "--provider", provider),
        *("--repository", str(kit.decoders), "--model", found[0], "--no-memory"),
        *("--shapes", ",".join(shapes), "--rounds", "1" if kit.quick else "5", "--output", str(output)),
    ]
    try:
        _python(command)
    except subprocess.CalledProcessError as error:
        table.must("prefix sharing", "failed", "runs", holds=False)
        return {"error": error.stderr[-4000:]}
    results = json.loads(output.read_text())
    for number, row in enumerate(results["rows"]):
        add_sharing(table, found[0], row, has_target=number == 0)
    return results


def add_sharing(table: Table, model: str, row: dict[str, Any], *, has_target: bool) -> None:
    """One shape: how many times as fast as with prompts of their own."""
    shape = f"prompt {row['prompt']}, N = {row['candidates']}, responses of {row['response']}"
    table.add(
        f"prefix sharing, {model}, {shape}: shared / unshared",
        f"{row['speedup']:.1f} (bound {row['bound']:.1f})",
        f">= {SHARING_TARGET:.0f}" if has_target else "",
        holds=row["speedup"] >= SHARING_TARGET if has_target else None,
    )


def _python(command: list[str]) -> str:
    """What one of the measuring programs prints; raises CalledProcessError, with what it complained of."""
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=SOURCES)
    return done.stdout


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it ended without a word"


def transformers_rate(kit: Kit) -> dict[str, Any] | None:
    """Measured in a process of its own, so that nothing of it stays on the GPU."""
    if kit.provider == "cpu":
        return None
    script = Path(__file__).with_name("transformers_rate.py")
    done = subprocess.run(
        [sys.executable, str(script), str(kit.workload)],
        capture_output=True,
        text=True,
        check=False,
    )
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def _metrics(url: str) -> dict[str, float]:
    text = wire.get(url, "/metrics").decode()
    wanted = ("karat_tokens_total", "karat_padding_tokens_total")
    lines = [line for line in text.splitlines() if line.startswith(wanted)]
    return {line.split("{")[0]: float(line.rsplit(" ", 1)[1]) for line in lines}


def _loadtest(kit: Kit, arguments: list[str]) -> dict[str, Any]:
    done = subprocess.run([str(kit.loadtest), *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{done.stderr}\nloadtest {' '.join(arguments)} ended with {done.returncode}")
    return json.loads(done.stdout)


def check(kit: Kit) -> tuple[Table, dict[str, Any]]:
    """Everything, one after another."""
    table = Table()
    results = {
        "doctor": check_doctor(kit, table),
        "parity": check_parity(kit, table),
        "speed": check_speed(kit, table),
        "sharing": check_sharing(kit, table),
    }
    return table, results


def kit_of_bundle(folder: Path, work: Path, provider: str, *, quick: bool) -> Kit:
    """What a bundle unpacks to. The programs run in another folder, so all paths are whole."""
    folder, work = folder.resolve(), work.resolve()
    pieces.unpack(folder, work)
    return Kit(
        karat=work / "bin/karat",
        loadtest=work / "bin/loadtest",
        onnxruntime=work / "lib/libonnxruntime.so",
        models={name: work / "models" / name for name in TOLERANCE},
        decoders=work / "decoders",
        workload=work / "workload.jsonl",
        work=work / "run",
        provider=provider,
        quick=quick,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Check karat on a GPU.")
    parser.add_argument("--bundle", type=Path, default=SOURCES)
    parser.add_argument("--work", type=Path, default=Path("gpu-check"))
    parser.add_argument("--provider", choices=["cuda", "tensorrt", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="few samples, seconds instead of minutes")
    arguments = parser.parse_args()
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        kit = kit_of_bundle(arguments.bundle, arguments.work, arguments.provider, quick=arguments.quick)
    except pieces.Damaged as error:
        raise SystemExit(str(error)) from error
    table, results = check(kit)
    output = arguments.work / "results.json"
    output.write_text(json.dumps({"table": table.rows, **results}, indent=1) + "\n")
    print(f"\n{table}\n\nwritten: {output}")
    if table.failed:
        raise SystemExit("scores are off: see the lines marked MISSED")


if __name__ == "__main__":
    main()
