"""Replaces a model again and again under load, and holds every reply to the version that it names.

Two manifests that shift the score by different numbers take turns in one folder. Clients score the same texts all the
while: a reply must be answered with 200, and its rewards must be those of the version that it names. What replies take
is compared with the same load without replacing. Clients have processes of their own, so that what is measured of
replacing isn't their wait for Python's lock.

    .venv/bin/python -m loadtest.replace                      # 1,000 replacements, 64 clients
    .venv/bin/python -m loadtest.replace --replacements 20 --clients 8
    .venv/bin/python -m loadtest.replace --tiny               # a graph of one sum: what the server takes by itself
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import multiprocessing.synchronize
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtest.machine import resident_bytes
from loadtest.tiny import write_tiny
from tools.server_process import ServerProcess

SHIFTS = (0.0, 100.0)
TEXTS = [f"What is {number} times {number}? It is {number * number}." for number in range(200)]
CLOSE = 1e-3
# Among so many processes the clients are divided.
PROCESSES = 4

Known = dict[str, dict[str, float]]


@dataclass
class Tally:
    """What came of the requests of all clients."""

    seconds: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def take(self, other: Tally) -> None:
        """Adds what came of the requests of others."""
        self.seconds += other.seconds
        self.lost += other.lost
        self.wrong += other.wrong


def call(connection: http.client.HTTPConnection, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Posts a body and gives status and reply."""
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    reply = connection.getresponse()
    return reply.status, json.loads(reply.read())


def score(connection: http.client.HTTPConnection, texts: list[str]) -> tuple[int, dict[str, Any]]:
    """Scores texts with the model."""
    inputs = [{"prompt": "Calculate.", "response": text} for text in texts]
    return call(connection, "/v1/score", {"model": "model", "inputs": inputs})


def client(address: str, number: int, known: Known, tally: Tally, stop: multiprocessing.synchronize.Event) -> None:
    """Scores one text after another until told to stop."""
    connection = http.client.HTTPConnection(address, timeout=60)
    step = number
    while not stop.is_set():
        step += 1
        text = TEXTS[step % len(TEXTS)]
        started = time.monotonic()
        try:
            status, reply = score(connection, [text])
            if status != 200:
                tally.lost.append(f"{status} {reply}")
            else:
                expected = known[reply["model_version"]][text]
                found = reply["results"][0]["reward"]
                if abs(found - expected) > CLOSE:
                    tally.wrong.append(f"{reply['model_version']} gives {found} for {expected}")
        except (OSError, http.client.HTTPException) as error:
            tally.lost.append(repr(error))
            connection = http.client.HTTPConnection(address, timeout=60)
        except KeyError as error:
            tally.wrong.append(f"a version that was never loaded: {error}")
        tally.seconds.append(time.monotonic() - started)


def clients(
    address: str,
    numbers: list[int],
    known: Known,
    stop: multiprocessing.synchronize.Event,
    told: multiprocessing.Queue[Tally],
) -> None:
    """One process's clients, a thread each."""
    tallies = [Tally() for _ in numbers]
    threads = [
        threading.Thread(target=client, args=(address, number, known, tally, stop))
        for number, tally in zip(numbers, tallies, strict=True)
    ]
    for thread in threads:
        thread.start()
    whole = Tally()
    for thread, tally in zip(threads, tallies, strict=True):
        thread.join()
        whole.take(tally)
    told.put(whole)


def write(folder: Path, manifest: str, shift: float) -> None:
    """Puts the manifest with that shift into the folder at once."""
    text = manifest.replace("transforms = []", f"transforms = [{{ affine = {{ scale = 1, offset = {shift} }} }}]")
    partial = folder / ".model.toml"
    partial.write_text(text)
    partial.rename(folder / "model.toml")


def quantile(seconds: list[float], share: float) -> float:
    """A quantile in milliseconds."""
    return round(1000 * sorted(seconds)[min(len(seconds) - 1, int(share * len(seconds)))], 1)


def measure(address: str, count: int, known: Known, meanwhile: Callable[[], None]) -> tuple[Tally, float]:
    """Runs the clients while `meanwhile` does its work, and gives what came of it and how long that took."""
    context = multiprocessing.get_context("spawn")
    stop, told = context.Event(), context.Queue()
    numbers = [number * 7 for number in range(count)]
    shares = [numbers[first::PROCESSES] for first in range(min(PROCESSES, count))]
    processes = [context.Process(target=clients, args=(address, share, known, stop, told)) for share in shares]
    for process in processes:
        process.start()
    # Until all of them are at work.
    time.sleep(2)
    started = time.monotonic()
    try:
        meanwhile()
    finally:
        elapsed = time.monotonic() - started
        stop.set()
    whole = Tally()
    for _ in processes:
        whole.take(told.get())
    for process in processes:
        process.join()
    return whole, elapsed


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Replace a model again and again under load.")
    parser.add_argument("--server", type=Path, default=Path("target/release/karat"))
    parser.add_argument("--model", type=Path, default=Path("models/relevance"))
    parser.add_argument("--tiny", action="store_true", help="a graph of one sum in its place")
    parser.add_argument("--replacements", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=64)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        if arguments.tiny:
            write_tiny(folder)
        else:
            shutil.copytree(arguments.model, folder)
        manifest = (folder / "model.toml").read_text()
        write(folder, manifest, SHIFTS[0])
        # Without a cache: every request is computed by the version that answers it.
        options = ("--cache-mb", "0", "--queue-seconds", "0", "--watch-seconds", "3600")
        with ServerProcess(arguments.server, Path(temporary), *options) as server:
            address = server.url.removeprefix("http://")
            admin = http.client.HTTPConnection(address, timeout=600)
            known: Known = {}
            took: list[float] = []

            def replace(turn: int) -> None:
                write(folder, manifest, SHIFTS[turn % 2])
                started = time.monotonic()
                status, reply = call(admin, "/v1/models/model/load", {})
                if status != 200:
                    raise SystemExit(f"a replacement failed: {status} {reply}")
                took.append(time.monotonic() - started)

            for turn in range(2):
                replace(turn)
                _, reply = score(admin, TEXTS)
                rewards = [result["reward"] for result in reply["results"]]
                known[reply["model_version"]] = dict(zip(TEXTS, rewards, strict=True))
            if len(known) != 2:
                raise SystemExit("both manifests make one version")
            before = resident_bytes(server.pid)
            quiet, _ = measure(address, arguments.clients, known, lambda: time.sleep(10))
            took.clear()

            def replace_often() -> None:
                for turn in range(arguments.replacements):
                    replace(turn)

            busy, elapsed = measure(address, arguments.clients, known, replace_often)
            ratio = quantile(busy.seconds, 0.99) / quantile(quiet.seconds, 0.99)
            print(
                json.dumps(
                    {
                        "replacements": arguments.replacements,
                        "seconds": round(elapsed, 1),
                        "replacement_ms": {"p50": quantile(took, 0.5), "p99": quantile(took, 0.99)},
                        "requests": len(busy.seconds),
                        "lost": len(busy.lost),
                        "wrong_version": len(busy.wrong),
                        "p50_ms": [quantile(quiet.seconds, 0.5), quantile(busy.seconds, 0.5)],
                        "p99_ms": [quantile(quiet.seconds, 0.99), quantile(busy.seconds, 0.99)],
                        "p99_ratio": round(ratio, 2),
                        "mean_ratio": round(statistics.mean(busy.seconds) / statistics.mean(quiet.seconds), 2),
                        "resident_mb": [before >> 20, resident_bytes(server.pid) >> 20],
                        "examples": (busy.lost + busy.wrong)[:3],
                    }
                )
            )


if __name__ == "__main__":
    main()
