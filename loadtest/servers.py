"""Starts servers on free loopback ports and stops them again, whatever happens."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.machine import process_seconds, resident_bytes

START_SECONDS = 180
STOP_SECONDS = 45
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
    port: int
    process: int
    dialect: str
    model: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"content-type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def scores(self, pairs: list[tuple[str, str]]) -> list[float]:
        """The score of each prompt with its response; raises SystemExit on an error."""
        inputs = [{"prompt": prompt, "response": response} for prompt, response in pairs]
        if self.dialect == "karat":
            status, content = self.request(
                "POST", "/v1/score", {"model": self.model, "inputs": inputs, "transforms": []}
            )
            read = lambda answer: [result["raw"] for result in answer["results"]]  # noqa: E731
        elif self.dialect == "fastapi":
            status, content = self.request("POST", "/score", {"inputs": inputs})
            read = lambda answer: answer["scores"]  # noqa: E731
        else:
            return [self._rerank(prompt, response) for prompt, response in pairs]
        if status != 200:
            raise SystemExit(f"{self.name}: HTTP {status}: {content.decode(errors='replace')}")
        return read(json.loads(content))

    def _rerank(self, prompt: str, response: str) -> float:
        body = {"model": self.model, "query": prompt, "documents": [response], "raw_scores": True}
        status, content = self.request("POST", "/rerank", body)
        if status != 200:
            raise SystemExit(f"{self.name}: HTTP {status}: {content.decode(errors='replace')}")
        return json.loads(content)["results"][0]["relevance_score"]

    def metrics(self) -> dict[str, float]:
        """karat's own counts for the model, by name, histograms as `_count` and `_sum`."""
        status, content = self.request("GET", "/metrics")
        if status != 200:
            raise SystemExit(f"{self.name}: GET /metrics: HTTP {status}")
        line = re.compile(rf'^(\w+)\{{model="{re.escape(self.model)}"\}} (\S+)$', re.MULTILINE)
        return {name: float(value) for name, value in line.findall(content.decode())}

    def resident_bytes(self) -> int:
        return resident_bytes(self.process)

    def is_idle(self, seconds: float) -> bool:
        """Whether it used next to no processor time for that long."""
        before = process_seconds(self.process)
        time.sleep(seconds)
        return process_seconds(self.process) - before < 0.05 * seconds


@contextmanager
def karat(executable: Path, models: Path, model: str, logs: Path, *flags: str) -> Iterator[Server]:
    """karat with the repository `models`; requests name `model`."""
    port = _free_port()
    command = [str(executable), "serve", "--models", str(models), "--log", "warn"]
    command += ["--listen", f"127.0.0.1:{port}", *flags]
    with _running(f"karat {' '.join(flags)}".strip(), command, port, "/health/ready", logs) as pid:
        yield Server("karat", port, pid, "karat", model)


@contextmanager
def fastapi(folder: Path, max_batch: int, logs: Path) -> Iterator[Server]:
    """The usual server with batches of at most `max_batch`."""
    port = _free_port()
    command = [sys.executable, "-m", "loadtest.peers.fastapi_server", "--model", str(folder)]
    command += ["--port", str(port), "--max-batch", str(max_batch)]
    with _running(f"fastapi-{max_batch}", command, port, "/health", logs) as pid:
        yield Server(f"fastapi-{max_batch}", port, pid, "fastapi", folder.name)


@contextmanager
def infinity(python: Path, folder: Path, logs: Path) -> Iterator[Server]:
    """Infinity with its ONNX Runtime engine, from a virtual environment of its own."""
    port = _free_port()
    # It finds the graph only by a path that is relative to the model's folder.
    command = [str(python.parent.absolute() / "infinity_emb"), "v2", "--model-id", "."]
    command += ["--engine", "optimum", "--device", "cpu", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--served-model-name", folder.name]
    command += ["--no-model-warmup", "--log-level", "warning"]
    with _running("infinity", command, port, "/health", logs, folder) as pid:
        yield Server("infinity", port, pid, "infinity", folder.name)


@contextmanager
def vllm(python: Path, folder: Path, logs: Path, threads: str | None) -> Iterator[Server]:
    """vLLM with its prefix cache, in single precision, as a classifier; `threads` binds it to cores such as `0-1`."""
    port = _free_port()
    command = [str(python.parent.absolute() / "python"), "-m", "vllm.entrypoints.cli.main", "serve"]
    command += [str(folder.absolute()), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--served-model-name", folder.name, "--dtype", "float32", "--max-model-len", "2048"]
    command += ["--runner", "pooling", "--convert", "classify", "--enable-prefix-caching"]
    environment = {"VLLM_TARGET_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": "2"}
    if threads:
        environment["VLLM_CPU_OMP_THREADS_BIND"] = threads
    name = f"vllm-{threads or 'default'}"
    with _running(name, command, port, "/health", logs, environment=environment) as pid:
        yield Server(name, port, pid, "vllm", folder.name)


@contextmanager
def _running(
    name: str,
    command: list[str],
    port: int,
    ready: str,
    logs: Path,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[int]:
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{re.sub(r'[^a-z0-9]+', '-', name)}.log"
    variables = {**os.environ, **QUIET, **(environment or {})}
    if folder:
        variables["HF_HOME"] = str(folder.absolute() / "cache")
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=variables, cwd=folder
        )
    try:
        _wait_until_ready(name, process, port, ready, log)
        yield process.pid
        if process.poll() is not None:
            raise SystemExit(f"{name} ended with {process.returncode}; its log is {log}")
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(
    name: str, process: subprocess.Popen[bytes], port: int, path: str, log: Path
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    tail = log.read_text(errors="replace")[-3000:]
    raise SystemExit(f"{tail}\n{name} did not become ready; its log is {log}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
