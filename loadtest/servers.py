"""Starts servers on free loopback ports and stops them again, whatever happens."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from loadtest import wire
from loadtest.machine import process_seconds, resident_bytes
from tools.server_process import answers, free_address, running

START_SECONDS = 180.0
REQUEST_SECONDS = 120.0
CALIBRATION_SECONDS = 60.0
# Nobody looks for models, or reports use, over the network.
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    "ORT_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
}


@dataclass(frozen=True)
class Server:
    """A server that is running, and how it wants to be asked."""

    name: str
    address: str
    process: int
    dialect: str
    model: str

    @property
    def url(self) -> str:
        """Its address, with the scheme."""
        return f"http://{self.address}"

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Holds all its processes meanwhile: what they do while nobody asks takes nothing from others."""
        os.killpg(self.process, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self.process, signal.SIGCONT)

    def post(self, path: str, body: Any) -> Any:
        """What the server answers; raises SystemExit on an error."""
        try:
            return wire.post(self.url, path, body, REQUEST_SECONDS)
        except RuntimeError as error:
            raise SystemExit(f"{self.name}: {error}") from error

    def scores(self, pairs: list[tuple[str, str]]) -> list[float]:
        """The score of each prompt with its response; raises SystemExit on an error."""
        inputs = [{"prompt": prompt, "response": response} for prompt, response in pairs]
        if self.dialect == "karat":
            answer = self.post("/v1/score", {"model": self.model, "inputs": inputs, "transforms": []})
            return [result["raw"] for result in answer["results"]]
        if self.dialect == "fastapi":
            scores: list[float] = self.post("/score", {"inputs": inputs})["scores"]
            return scores
        return [self._rerank(prompt, response) for prompt, response in pairs]

    def _rerank(self, prompt: str, response: str) -> float:
        body = {"model": self.model, "query": prompt, "documents": [response], "raw_scores": True}
        return float(self.post("/rerank", body)["results"][0]["relevance_score"])

    def metrics(self) -> dict[str, float]:
        """karat's own counts for the model, by name, histograms as `_count` and `_sum`."""
        content = wire.get(self.url, "/metrics")
        line = re.compile(rf'^(\w+)\{{model="{re.escape(self.model)}"\}} (\S+)$', re.MULTILINE)
        return {name: float(value) for name, value in line.findall(content.decode())}

    def resident_bytes(self) -> int:
        """Resident memory of its process now."""
        return resident_bytes(self.process)

    def is_idle(self, seconds: float) -> bool:
        """Whether it used next to no processor time for that long."""
        before = process_seconds(self.process)
        time.sleep(seconds)
        return process_seconds(self.process) - before < 0.05 * seconds


def wait_until_calibrated(url: str) -> None:
    """Returns once karat has measured every graph, which it does when it has nothing else to do.

    On a machine that isn't quiet it goes on as most models do, and so does this after a while.
    """
    deadline = time.monotonic() + CALIBRATION_SECONDS
    while time.monotonic() < deadline:
        models = json.loads(wire.get(url, "/v1/models"))["data"]
        graphs = [graph for model in models for graph in model.get("graphs", [])]
        if not any(graph.get("awaits_calibration") for graph in graphs):
            return
        time.sleep(0.2)
    print(f"{url} could not be calibrated within {CALIBRATION_SECONDS:g} s: is the machine quiet?", file=sys.stderr)


@contextmanager
def karat(
    executable: Path,
    models: Path,
    model: str,
    logs: Path,
    *flags: str,
    bounded: bool = False,
    under: Sequence[str] = (),
) -> Iterator[Server]:
    """karat with the repository `models`, once it is calibrated; requests name `model`.

    Unless `bounded`, all may wait however long. It is run by the command `under`, where there is one.
    """
    address = free_address()
    command = [*under, str(executable), "serve", "--models", str(models), "--log", "warn"]
    command += [] if bounded else ["--queue-seconds", "0", "--dialect-queue-seconds", "0"]
    command += ["--listen", address, *flags]
    with _running(f"karat {' '.join(flags)}".strip(), command, address, "/health/ready", logs) as pid:
        wait_until_calibrated(f"http://{address}")
        yield Server("karat", address, pid, "karat", model)


@contextmanager
def fastapi(folder: Path, max_batch: int, logs: Path) -> Iterator[Server]:
    """The usual server with batches of at most `max_batch`."""
    address = free_address()
    command = [sys.executable, "-m", "loadtest.peers.fastapi_server", "--model", str(folder)]
    command += ["--port", _port(address), "--max-batch", str(max_batch)]
    with _running(f"fastapi-{max_batch}", command, address, "/health", logs) as pid:
        yield Server(f"fastapi-{max_batch}", address, pid, "fastapi", folder.name)


@contextmanager
def infinity(python: Path, folder: Path, logs: Path) -> Iterator[Server]:
    """Infinity with its ONNX Runtime engine, from a virtual environment of its own."""
    address = free_address()
    # It finds the graph only by a path that is relative to the model's folder.
    command = [str(python.parent.absolute() / "infinity_emb"), "v2", "--model-id", "."]
    command += ["--engine", "optimum", "--device", "cpu", *_host_and_port(address)]
    command += ["--served-model-name", folder.name]
    command += ["--no-model-warmup", "--log-level", "warning"]
    with _running("infinity", command, address, "/health", logs, folder) as pid:
        yield Server("infinity", address, pid, "infinity", folder.name)


@contextmanager
def vllm(python: Path, folder: Path, logs: Path, threads: str | None) -> Iterator[Server]:
    """vLLM with its prefix cache, in single precision, as a classifier; `threads` binds it to cores such as `0-1`."""
    address = free_address()
    command = [str(python.parent.absolute() / "python"), "-m", "vllm.entrypoints.cli.main", "serve"]
    command += [str(folder.absolute()), *_host_and_port(address)]
    command += ["--served-model-name", folder.name, "--dtype", "float32", "--max-model-len", "2048"]
    command += ["--runner", "pooling", "--convert", "classify", "--enable-prefix-caching"]
    environment = {"VLLM_TARGET_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": "2"}
    if threads:
        environment["VLLM_CPU_OMP_THREADS_BIND"] = threads
    name = f"vllm-{threads or 'default'}"
    with _running(name, command, address, "/health", logs, environment=environment) as pid:
        yield Server(name, address, pid, "vllm", folder.name)


@contextmanager
def _running(
    name: str,
    command: list[str],
    address: str,
    ready: str,
    logs: Path,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[int]:
    logs.mkdir(parents=True, exist_ok=True)
    variables = {**os.environ, **QUIET, **(environment or {})}
    if folder:
        variables["HF_HOME"] = str(folder.absolute() / "cache")
    with (logs / f"{re.sub(r'[^a-z0-9]+', '-', name)}.log").open("w+b") as log:
        ready_now = partial(answers, f"http://{address}{ready}")
        with running(
            command, ready_now, log, start_seconds=START_SECONDS, environment=variables, folder=folder
        ) as process:
            yield process.pid


def _port(address: str) -> str:
    return address.rpartition(":")[2]


def _host_and_port(address: str) -> list[str]:
    return ["--host", "127.0.0.1", "--port", _port(address)]
