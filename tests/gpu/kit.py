"""What every part of the GPU check works with: programs, models that are written when wanted, servers, load."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtest import wire
from tests.gpu import checkpoints, shapes, texts
from tests.gpu.shapes import Decoder, Shape
from tests.gpu.texts import Sample, Texts
from tools.server_process import free_address, running

READY_SECONDS = 120.0
# Generators at most: each is one thread, and the server wants cores as well.
GENERATORS = 4
CORES_A_GENERATOR = 4
# Clients from which on one generator isn't enough.
CLIENTS_A_GENERATOR = 16


class Lacking(Exception):
    """What can't be measured for want of something: the row says of what."""


@dataclass(frozen=True)
class Kit:
    """Where everything is, and on what it runs."""

    karat: Path
    loadtest: Path
    onnxruntime: Path
    # Checkpoints as they were recorded with Transformers' scores, and a graph that others exported.
    recorded: Path
    foreign: Path
    work: Path
    provider: str
    tiny: bool
    # A Python that may have torch and transformers.
    peer: str

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """The shapes to measure, by name."""
        return shapes.TINY if self.tiny else shapes.FULL

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU computes."""
        return self.provider != "cpu"

    def found(self, part: str) -> Path:
        """Where a part writes what it finds."""
        return self.work / "found" / f"{part}.json"

    def seconds(self, wanted: float) -> float:
        """How long to measure; a moment where only the way is tried."""
        return 0.5 if self.tiny else wanted

    def checkpoint(self, name: str) -> Path:
        """The folder of a checkpoint, which is written if it isn't there."""
        folder = self.work / "checkpoints" / name
        trunk = name.removesuffix("-writer")
        if trunk != name:
            checkpoints.lend(self.checkpoint(trunk), folder, "trunk-*")
        checkpoints.write_checkpoint(folder, self.shapes[name], self.provider)
        return folder

    def repository(self, name: str) -> Path:
        """A repository with that checkpoint alone; a decoder has as many blocks as it has by default, told to it."""
        blocks = f"block_memory_mb = {self.block_memory >> 20}" if isinstance(self.shapes[name], Decoder) else ""
        return self.linked(f"only-{name}", {name: name}, options=blocks)

    @property
    def block_memory(self) -> int:
        """Bytes of keys and values."""
        return (8 << 20) if self.tiny else (4 << 30)

    def linked(
        self,
        repository: str,
        models: dict[str, str],
        *,
        provider: str | None = None,
        as_on_gpu: bool = True,
        options: str = "",
    ) -> Path:
        """A repository of models, each by the name of its checkpoint, whose files are linked; the rest as in
        `checkpoints.write_manifest`. What is in that repository already stays."""
        folder = self.work / "repositories" / repository
        for model, name in models.items():
            checkpoints.lend(self.checkpoint(name), folder / model)
            on = provider or self.provider
            checkpoints.write_manifest(folder / model, self.shapes[name], on, as_on_gpu=as_on_gpu, options=options)
        return folder

    def workload(self, name: str, count: int, parts: int = 1, seed: int = 1) -> list[Path]:
        """Samples of mixed lengths, in so many files; few of them where only the way is tried."""
        count = min(count, 96) if self.tiny else count
        folder = self.work / "workloads"
        folder.mkdir(parents=True, exist_ok=True)
        samples = Texts(self.shapes[name], seed).mixed(count)
        return [
            texts.write(samples[part::parts], folder / f"{name}-{count}-{seed}-{part}-{parts}.jsonl")
            for part in range(parts)
        ]

    def generators(self, clients: int) -> int:
        """How many generators put the load of so many clients on a server."""
        most = max(1, min(GENERATORS, (os.cpu_count() or 1) // CORES_A_GENERATOR))
        return min(most, max(1, clients // CLIENTS_A_GENERATOR))


@dataclass(frozen=True)
class Served:
    """A server that runs."""

    url: str
    pid: int
    # Until it was ready.
    seconds: float

    def metrics(self, model: str) -> dict[str, float]:
        """Its counts for a model, by name; of histograms `_count` and `_sum`."""
        content = wire.get(self.url, "/metrics").decode()
        line = re.compile(rf'^(\w+)\{{model="{re.escape(model)}"\}} (\S+)$', re.MULTILINE)
        return {name: float(value) for name, value in line.findall(content)}

    def card(self, model: str) -> dict[str, Any]:
        """What it says of a model."""
        found: dict[str, Any] = json.loads(wire.get(self.url, f"/v1/models/{model}"))
        return found

    def scores(self, model: str, samples: Sequence[Sample]) -> list[float]:
        """The scores of samples that are sent in one request."""
        inputs = [{"prompt": sample["prompt"], "response": sample["response"]} for sample in samples]
        reply = wire.post(self.url, "/v1/score", {"model": model, "inputs": inputs})
        return [result["raw"] for result in reply["results"]]

    def processor_seconds(self) -> float:
        """Processor time of the server so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def serving(kit: Kit, repository: Path, *flags: str, seconds: float = READY_SECONDS) -> Iterator[Served]:
    """karat with that repository, once it is ready; its log lies in the working folder."""
    address = free_address()
    url = f"http://{address}"
    command = [
        *(str(kit.karat), "serve", "--models", str(repository), "--listen", address),
        *("--onnxruntime", str(kit.onnxruntime), "--cache-mb", "0", "--calibration-seconds", "0"),
        # A line for each of ten thousand requests a second would be measured as well.
        *("--queue-seconds", "0", "--drain-seconds", "2", "--log", "info,karat::api=warn", *flags),
    ]
    logs = kit.work / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with (
        (logs / f"{repository.name}.log").open("w+b") as log,
        running(command, lambda: _ready(url), log, start_seconds=seconds) as process,
    ):
        yield Served(url, process.pid, time.monotonic() - started)


def _ready(url: str) -> bool:
    try:
        ready = wire.request(url, "GET", "/health/ready", timeout=5.0)[0] == 200
        models = json.loads(wire.get(url, "/v1/models"))["data"]
    except (OSError, RuntimeError):
        return False
    if models and all(model["status"] == "failed" for model in models):
        raise SystemExit("; ".join(f"{model['id']}: {model.get('reason')}" for model in models))
    return ready


@dataclass(frozen=True)
class Load:
    """What clients got."""

    tokens_per_second: float
    samples_per_second: float
    p50_ms: float
    p99_ms: float
    # Of a generator's one thread: near 1 it is the generator that bounds the rate.
    generator_busy: float
    # Cores that the server kept busy.
    server_cores: float


def closed(kit: Kit, served: Served, model: str, workloads: Sequence[Path], clients: int, seconds: float) -> Load:
    """Clients with one sample a request, each of which waits for its reply, on a generator for each workload.

    Raises RuntimeError when a request fails, for half a measurement is none.
    """
    shares = [clients // len(workloads) + (at < clients % len(workloads)) for at in range(len(workloads))]
    started, before = time.monotonic(), served.processor_seconds()
    generators = [
        subprocess.Popen(
            [
                *(str(kit.loadtest), "closed", "--url", served.url, "--model", model, "--workload", str(path)),
                *("--clients", str(share), "--seconds", str(seconds), "--at-most", str(seconds + 20.0)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for path, share in zip(workloads, shares, strict=True)
    ]
    # None of them prints more than a pipe holds.
    used = [os.wait4(generator.pid, 0) for generator in generators]
    elapsed = time.monotonic() - started
    reports = []
    for generator, (_, status, _) in zip(generators, used, strict=True):
        output, errors = (stream.read() for stream in (generator.stdout, generator.stderr) if stream)
        generator.returncode = os.waitstatus_to_exitcode(status)
        if status:
            raise RuntimeError(f"a load generator ended with {generator.returncode}: {errors.strip()}")
        reports.append(json.loads(output))
    for report in reports:
        if set(report["statuses"]) - {"200"} or report["broken"] or not report["samples"]:
            raise RuntimeError(f"requests failed under load: {report['statuses']}, {report['broken']} broken")
    busy = max((use.ru_utime + use.ru_stime) / elapsed for _, _, use in used)
    return Load(
        tokens_per_second=sum(report["tokens_per_second"] for report in reports),
        samples_per_second=sum(report["samples_per_second"] for report in reports),
        p50_ms=statistics.median(report["latency_ms"]["p50"] for report in reports),
        p99_ms=max(report["latency_ms"]["p99"] for report in reports),
        generator_busy=busy,
        server_cores=(served.processor_seconds() - before) / elapsed,
    )


def packed_loop(kit: Kit, folder: Path, workload: Path, rows: int) -> dict[str, Any]:
    """The same samples on the checkpoint's own session, without a server."""
    command = [
        *(str(kit.loadtest), "packed", "--checkpoint", str(folder), "--workload", str(workload)),
        *("--rows", str(rows), "--provider", kit.provider, "--onnxruntime", str(kit.onnxruntime)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the packed loop failed: {done.stderr.strip()}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@dataclass
class Readings:
    """What nvidia-smi told of the first GPU, and karat of its passes."""

    percent: list[float] = field(default_factory=list)
    # Of the time, by karat's own count of its passes.
    passes: float = 0.0

    @property
    def busy(self) -> float | None:
        """The mean, without the readings in which the load starts or ends."""
        middle = self.percent[2:-2] or self.percent
        return statistics.fmean(middle) if middle else None


@contextlib.contextmanager
def watching(served: Served, model: str) -> Iterator[Readings]:
    """Reads how busy the GPU is while the block runs; nothing where there is none."""
    readings = Readings()
    command = [
        *("nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"),
        *("--id=0", "--loop-ms=200"),
    ]
    name = "karat_forward_pass_seconds_sum"
    before, started = served.metrics(model).get(name, 0.0), time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True) if shutil.which(command[0]) else None
    try:
        yield readings
    finally:
        readings.passes = (served.metrics(model).get(name, 0.0) - before) / (time.monotonic() - started)
        if process:
            process.terminate()
            output, _ = process.communicate()
            readings.percent += [float(line) for line in output.splitlines() if line.strip().isdigit()]


def gpu_memory() -> int | None:
    """The bytes that the first GPU holds, or nothing where nothing tells."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return int(done.stdout.split()[0]) << 20


def peer(kit: Kit, folder: Path, workload: Path, jobs: Sequence[str], seconds: float) -> dict[str, Any]:
    """What PyTorch Transformers does with the same shape and samples, in a process of its own, so that nothing of it
    stays on the GPU. Raises Lacking where that Python doesn't have it."""
    script = Path(__file__).with_name("peer.py")
    device = "cuda" if kit.on_gpu else "cpu"
    command = [kit.peer, str(script), "--config", str(folder / "config.json"), "--workload", str(workload)]
    command += ["--device", device, "--seconds", str(seconds), *jobs]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise Lacking(f"not measured: {kit.peer}: {error.strerror}") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise Lacking(f"not measured: {kit.peer}: {lines[-1] if lines else 'ended without a word'}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


class Askers:
    """Threads that each ask again as soon as they are answered, for the length of a block."""

    def __init__(self, count: int, ask: Callable[[int], object]) -> None:
        self._count, self._ask = count, ask
        self._stop = threading.Event()
        self.errors: list[BaseException] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Lets them ask; raises what the first of them ran into."""

        def run(number: int) -> None:
            turn = 0
            try:
                while not self._stop.is_set():
                    self._ask(number + self._count * turn)
                    turn += 1
            except BaseException as error:
                self.errors.append(error)

        threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(self._count)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
        if self.errors:
            raise self.errors[0]
