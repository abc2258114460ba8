"""What a key's check, a trace and the log line of each request cost, as ratios to a server without them.

    make bench-guard
    .venv/bin/python -m loadtest.guard --tiny --rounds 12

Four servers stand side by side: a plain one that logs warnings alone, one with keys, one that traces every request and
sends its spans to a collector on this machine, and one that writes a log line for each request. In each round all of
them get the same load, one after another in another order, so that what else the machine does hits all alike. Told are
the processor time of a request and the requests a second, each as its ratio to the plain server's of the same round:
the median of all rounds, and the middle half of them. `--tiny` takes a graph of one sum, beside which everything else
is large: what is told then is the most that it can be. Needs a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import multiprocessing.sharedctypes
import os
import random
import shutil
import socket
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.machine import process_seconds
from loadtest.tiny import write_tiny
from tools.server_process import answers, free_address, running

MODEL = "model"
# So many keys does the file hold: the check compares with each of them.
KEYS = 32
# Distinct texts, so many of each server's requests long; scores aren't cached.
SAMPLES = 512
PLAIN = "plain"


def collect(listener: socket.socket, received: multiprocessing.sharedctypes.Synchronized[int]) -> None:
    """Takes whatever is sent and answers 200: a collector that costs next to nothing."""
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as stream:
            while head := stream.readline():
                length = 0
                while (line := stream.readline()) not in (b"\r\n", b""):
                    name, _, value = line.partition(b":")
                    if name.lower() == b"content-length":
                        length = int(value)
                if not head.startswith(b"POST"):
                    break
                stream.read(length)
                with received.get_lock():
                    received.value += length
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")


@contextmanager
def collector() -> Iterator[tuple[str, multiprocessing.sharedctypes.Synchronized[int]]]:
    """A collector in a process of its own: its URL, and how many bytes it was sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        received = multiprocessing.Value("q", 0)
        process = multiprocessing.get_context("fork").Process(target=collect, args=(listener, received), daemon=True)
        process.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", received
        finally:
            process.kill()
            process.join()


@dataclass(frozen=True)
class Variant:
    """A server that is running."""

    address: str
    process: int
    key: str | None


@contextmanager
def variant(
    executable: Path, models: Path, log: Path, key: str | None, flags: list[str], environment: Mapping[str, str]
) -> Iterator[Variant]:
    """Starts one."""
    address = free_address()
    command = [str(executable), "serve", "--models", str(models), "--listen", address, "--cache-mb", "0"]
    command += ["--queue-seconds", "0", *flags]
    with (
        log.open("w+b") as written,
        running(
            command,
            lambda: answers(f"http://{address}/health/ready"),
            written,
            environment={**os.environ, **environment},
        ) as process,
    ):
        yield Variant(address, process.pid, key)


def keys(executable: Path, file: Path) -> str:
    """Writes a file of keys and gives the last of them."""
    key = ""
    with file.open("w") as lines:
        for number in range(KEYS):
            made = subprocess.run(
                [str(executable), "keys", "new", f"key-{number}"], capture_output=True, text=True, check=True
            )
            lines.write(made.stdout)
            key = made.stderr.strip()
    return key


def write_workload(file: Path) -> None:
    """Samples as the generator reads them."""
    chance = random.Random(1)
    with file.open("w") as lines:
        for number in range(SAMPLES):
            words = [str(chance.randrange(10, 300)) for _ in range(24)]
            sample = {"prompt": " ".join(words[:12]), "response": " ".join(words[12:]), "group": number}
            lines.write(json.dumps({**sample, "ids": list(range(len(words))), "type_ids": [0] * len(words)}) + "\n")


@dataclass(frozen=True)
class Figures:
    """What one server did in one round."""

    cpu_us: float
    per_second: float


def press(generator: Path, workload: Path, server: Variant, clients: int, seconds: float) -> Figures:
    """Puts the load on a server; raises SystemExit when a request isn't answered."""
    command = [str(generator), "closed", "--clients", str(clients), "--seconds", str(seconds), "--model", MODEL]
    command += ["--url", f"http://{server.address}", "--workload", str(workload)]
    command += ["--key", server.key] if server.key else []
    before = process_seconds(server.process)
    report: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    used = process_seconds(server.process) - before
    if report["broken"] or set(report["statuses"]) != {"200"}:
        raise SystemExit(f"requests were not answered: {report['statuses']}, {report['broken']} broken")
    return Figures(1e6 * used / report["requests"], report["requests"] / report["seconds"])


def quarters(values: list[float]) -> tuple[float, float, float]:
    """The lower quartile, the median and the upper quartile."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    lower, middle, upper = statistics.quantiles(values, n=4, method="inclusive")
    return lower, middle, upper


def tell(rounds: list[dict[str, Figures]]) -> None:
    """Prints the table."""
    plain = [one[PLAIN] for one in rounds]
    print(
        f"plain: {statistics.median(one.cpu_us for one in plain):.1f} µs of processor time a request, "
        f"{statistics.median(one.per_second for one in plain):.0f} requests a second\n"
    )
    print(f"{'':8} {'processor time':>14} {'middle half':>17} {'requests/s':>11} {'middle half':>17}")
    for name in rounds[0]:
        if name == PLAIN:
            continue
        used = quarters([one[name].cpu_us / one[PLAIN].cpu_us for one in rounds])
        rate = quarters([one[name].per_second / one[PLAIN].per_second for one in rounds])
        print(f"{name:8} {used[1]:14.3f} {used[0]:8.3f}-{used[2]:8.3f} {rate[1]:11.3f} {rate[0]:8.3f}-{rate[2]:8.3f}")


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", type=Path, default=Path("target/release/karat"), help="the program")
    parser.add_argument("--generator", type=Path, default=Path("target/release/examples/loadtest"))
    parser.add_argument("--model", type=Path, default=Path("models/relevance"), help="the model's folder")
    parser.add_argument("--tiny", action="store_true", help="a graph of one sum in its place")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=8.0, help="how long each server is asked in a round")
    arguments = parser.parse_args()
    rounds: list[dict[str, Figures]] = []
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        models = folder / "models"
        if arguments.tiny:
            write_tiny(models / MODEL)
        else:
            shutil.copytree(arguments.model, models / MODEL)
        workload = folder / "workload.jsonl"
        write_workload(workload)
        key = keys(arguments.server, folder / "keys.jsonl")
        url, received = stack.enter_context(collector())
        quiet = ["--log", "warn"]
        kinds: dict[str, tuple[str | None, list[str], dict[str, str]]] = {
            PLAIN: (None, quiet, {}),
            "key": (key, [*quiet, "--keys", str(folder / "keys.jsonl")], {}),
            "trace": (None, quiet, {"OTEL_EXPORTER_OTLP_ENDPOINT": url}),
            "log line": (None, ["--log", "info", "--log-format", "json"], {}),
        }
        servers = {
            name: stack.enter_context(variant(arguments.server, models, folder / f"{name}.log", *kind))
            for name, kind in kinds.items()
        }
        chance = random.Random(1)
        # The first round warms up.
        for number in range(arguments.rounds + 1):
            order = list(servers)
            chance.shuffle(order)
            found = {
                name: press(arguments.generator, workload, servers[name], arguments.clients, arguments.seconds)
                for name in order
            }
            if number:
                rounds.append({name: found[name] for name in servers})
        if not received.value:
            raise SystemExit("the collector was sent no spans: is the program built with the feature traces?")
        lines = (folder / "log line.log").read_bytes().count(b'"request"')
        if not lines:
            raise SystemExit("no request was logged")
    tell(rounds)


if __name__ == "__main__":
    main()
