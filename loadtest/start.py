"""`make bench-start`: how soon a repository serves, and how much memory it takes.

    python -m loadtest.start [--rounds 5] [--repository models]

The first start of a copy of the repository knows nothing of the machine; once it has measured everything, it ends. Then
it is started again, several times: seconds until it is ready, resident memory then, and after a load of samples of all
lengths to every model, one by one and in batches: at once, and when the server has come to rest, as it gives back then
what passes computed with. Weights are counted once where several models have the same file. Caches are off: they take
as much as they are told to.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from loadtest import wire
from loadtest.decoder import WORDS
from loadtest.machine import resident_bytes
from loadtest.servers import wait_until_calibrated
from tools.server_process import answers, free_address

SCRATCH = Path(".karat/loadtest")
WEIGHTS = (".onnx", ".safetensors", ".data")
POLL_SECONDS = 0.005
MIB = 1 << 20
# Words of each sample of the load, and how many samples a request has.
LENGTHS = (8, 40, 120, 200, 16, 80)
BATCHES = (1, 1, 8, 32)
CLIENTS = 8
# What is given back is given back when the files of models are looked at, and nothing ran since the last time.
LOOKS_SECONDS = 1
REST_SECONDS = 3.5
SECONDS_AT_MOST = 2.0
RATIO_AT_MOST = 1.6


def copy_of(repository: Path, target: Path) -> None:
    """Links the models into a repository of which nothing was measured."""
    for folder in sorted(path for path in repository.iterdir() if (path / "model.toml").is_file()):
        (target / folder.name).mkdir()
        for file in folder.absolute().iterdir():
            if not file.name.endswith(".calibration.json"):
                (target / folder.name / file.name).symlink_to(file)


def weight_bytes(repository: Path) -> int:
    """The bytes of all weight files, each counted once however often it is linked."""
    files = [path.stat() for path in repository.rglob("*") if path.name.endswith(WEIGHTS)]
    return sum({(file.st_dev, file.st_ino): file.st_size for file in files}.values())


def samples(number: int) -> list[dict[str, str]]:
    """The samples of a request, none of which another request has."""

    def text(seed: int, words: int) -> str:
        digits = [WORDS[seed // len(WORDS) ** place % len(WORDS)] for place in range(4)]
        return " ".join(digits + [WORDS[(seed + at * 13) % len(WORDS)] for at in range(words)])

    count = BATCHES[number % len(BATCHES)]
    seeds = [number * 1000 + index for index in range(count)]
    return [{"prompt": text(seed, 24), "response": text(seed * 3, LENGTHS[seed % len(LENGTHS)])} for seed in seeds]


def load(url: str, requests: int) -> None:
    """A mixed load on every model of a server that gives rewards."""
    models = [model["id"] for model in json.loads(wire.get(url, "/v1/models"))["data"] if model["status"] == "ready"]

    def ask(number: int) -> None:
        wire.post(url, "/v1/score", {"model": models[number % len(models)], "inputs": samples(number)})

    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(ask, range(requests * len(models))))


def start(server: Path, repository: Path, requests: int) -> dict[str, Any]:
    """Starts the server, and says how soon it was ready and what it held."""
    address = free_address()
    url = f"http://{address}"
    command = [str(server), "serve", "--models", str(repository), "--listen", address, "--log", "warn", "--strict"]
    command += ["--queue-seconds", "0", "--watch-seconds", str(LOOKS_SECONDS)]
    command += ["--cache-mb", "0", "--prefix-cache-mb", "0"]
    started = time.monotonic()
    with subprocess.Popen(command) as process:
        try:
            while not answers(f"{url}/health/ready"):
                if process.poll() is not None:
                    raise SystemExit("the server ended; its last line says why")
                time.sleep(POLL_SECONDS)
            result = {"seconds": time.monotonic() - started}
            wait_until_calibrated(url)

            def resident(after: float) -> float:
                time.sleep(after)
                return resident_bytes(process.pid) / MIB

            result["ready_mb"] = resident(REST_SECONDS)
            load(url, requests)
            return {**result, "loaded_mb": resident(0), "rested_mb": resident(REST_SECONDS)}
        finally:
            process.terminate()


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Measure how soon models serve, and the memory that they take.")
    parser.add_argument("--server", type=Path, default=Path("target/release/karat"))
    parser.add_argument("--repository", type=Path, default=Path("models"))
    parser.add_argument("--rounds", type=int, default=5, help="how often it is started again")
    parser.add_argument("--requests", type=int, default=48, help="requests of the load, for each model")
    parser.add_argument("--output", type=Path, default=SCRATCH / "start.json")
    arguments = parser.parse_args()
    SCRATCH.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        repository = Path(folder)
        copy_of(arguments.repository, repository)
        weights = weight_bytes(repository) / MIB
        first = start(arguments.server, repository, 1)
        again = [start(arguments.server, repository, arguments.requests) for _ in range(arguments.rounds)]
    median = {name: statistics.median(result[name] for result in again) for name in again[0]}
    print(f"weights {weights:.0f} MiB; the first start was ready after {first['seconds']:.2f} s\n")
    print("| | median | at most |\n|---|---|---|")
    print(f"| seconds until ready, started again | {median['seconds']:.2f} | {SECONDS_AT_MOST} |")
    rows = {"ready_mb": "ready", "loaded_mb": "as a mixed load ends", "rested_mb": "after it, at rest"}
    for name, what in rows.items():
        ratio, bound = median[name] / weights, "" if name == "loaded_mb" else RATIO_AT_MOST
        print(f"| resident memory, {what} | {median[name]:.0f} MiB, {ratio:.2f} times the weights | {bound} |")
    arguments.output.write_text(json.dumps({"weights_mb": weights, "first": first, "again": again}, indent=2) + "\n")


if __name__ == "__main__":
    main()
