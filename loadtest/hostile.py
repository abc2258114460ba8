"""One client that does its worst, beside a canary at 20 requests a second.

Tells for each kind the canary's p99 as a multiple of its usual one, and the most memory.

    .venv/bin/python -m loadtest.hostile --server target/release/karat --models models --model relevance

A quiet machine is needed: client and server share its cores. `--kinds announced,streams` runs some of the kinds.
What is wanted: scores right, every canary answered, p99 below five times its usual, memory below 1.5 times that of the
ready server plus `--buffered-mb`.
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from loadtest import wire
from loadtest.canary import ADDRESS, PAIRS, Canary, quantile, reference
from loadtest.machine import resident_bytes
from tools.server_process import answers, free_address, running

BUFFERED_MB = 256
MEMORY_SECONDS = 0.05
Hostile = Callable[[str, str, threading.Event], None]


def _ask(address: str, path: str, body: bytes, headers: dict[str, str] | None = None) -> None:
    """Sends a request and takes whatever comes."""
    connection = http.client.HTTPConnection(address, timeout=120)
    try:
        connection.request("POST", path, body, headers or {})
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        time.sleep(0.05)
    finally:
        connection.close()


def _beside(clients: int, work: Callable[[], None], until: threading.Event) -> None:
    """Does it again and again, side by side."""

    def again() -> None:
        while not until.is_set():
            work()

    threads = [threading.Thread(target=again, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    until.wait()


def big_body(address: str, model: str, until: threading.Event) -> None:
    """Responses of 30 MB of `!`, two at a time."""
    body = json.dumps({"model": model, "inputs": [{"prompt": "x", "response": "!" * 30_000_000}]}).encode()
    _beside(2, lambda: _ask(address, "/v1/score", body), until)


def announced(address: str, model: str, until: threading.Event) -> None:
    """Bodies of 32 MB that are announced and never come, 32 at a time."""
    del model
    host, port = address.split(":")
    head = f"POST /v1/score HTTP/1.1\r\nhost: {address}\r\ncontent-length: 33554432\r\n\r\n".encode()
    connections = []
    for _ in range(32):
        connection = socket.create_connection((host, int(port)))
        connection.sendall(head)
        connections.append(connection)
    until.wait()
    for connection in connections:
        connection.close()


def _field(name: str, value: str) -> bytes:
    """A header of HTTP/2, written out (RFC 7541, 6.2.2): short names and values alone."""
    return b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack("!I", len(payload))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + payload


def streams(address: str, model: str, until: threading.Event) -> None:
    """40 streams of one connection of HTTP/2, each with a body that is announced and never comes."""
    del model
    host, port = address.split(":")
    connection = socket.create_connection((host, int(port)))
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b""))
    fields = {":method": "POST", ":scheme": "http", ":path": "/v1/score", ":authority": address}
    head = b"".join(_field(*one) for one in {**fields, "content-length": "33554432"}.items())
    for stream in range(1, 80, 2):
        connection.sendall(_frame(1, 4, stream, head) + _frame(0, 0, stream, b"{"))
    until.wait()
    connection.close()


def echoes(address: str, model: str, until: threading.Event) -> None:
    """An aggregation that is called a million `é`."""
    body = json.dumps({"model": model, "inputs": [{"text": "x"}], "aggregate": "é" * 1_000_000}, ensure_ascii=False)
    _beside(4, lambda: _ask(address, "/v1/score", body.encode()), until)


def queue(address: str, model: str, until: threading.Event) -> None:
    """64 clients of a trainer with texts of some length, each of its own."""
    number = iter(range(1 << 40))

    def one() -> None:
        text = " ".join(f"word {next(number)}" for _ in range(60))
        _ask(address, f"/m/{model}/get_reward", json.dumps({"query": [text] * 8}).encode())

    _beside(64, one, until)


def agreement(address: str, model: str, until: threading.Event) -> None:
    """The agreement of two lists of 400,000 numbers."""
    del model
    numbers = [(index * 7919) % 1009 / 10 for index in range(400_000)]
    body = json.dumps({"first": numbers, "second": numbers[::-1]}).encode()
    _beside(2, lambda: _ask(address, "/v1/metrics/ranking_agreement", body), until)


KINDS: dict[str, Hostile] = {
    "big_body": big_body,
    "announced": announced,
    "streams": streams,
    "echoes": echoes,
    "queue": queue,
    "agreement": agreement,
}


def beside(
    address: str, model: str, process: int, hostile: Hostile | None, seconds: float, known: list[float]
) -> dict[str, Any]:
    """What the canary met, and the most memory meanwhile."""
    canary = Canary(f"http://{address}", model, known)
    over, calm = threading.Event(), threading.Event()
    asking = threading.Thread(target=canary.run, args=(over,))
    worst = threading.Thread(target=hostile, args=(address, model, calm), daemon=True) if hostile else None
    if worst:
        worst.start()
        time.sleep(1.0)
    asking.start()
    memory, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        memory = max(memory, resident_bytes(process))
        time.sleep(MEMORY_SECONDS)
    over.set()
    asking.join()
    calm.set()
    if worst:
        worst.join(10)
    return {
        "answered": len(canary.seconds),
        "p99_ms": round(1000 * quantile(canary.seconds, 0.99), 1),
        "wrong": canary.wrong,
        "failed": dict.fromkeys(canary.failed, 0) | {what: canary.failed.count(what) for what in canary.failed},
        "memory_mib": memory >> 20,
    }


def main() -> int:
    """Run every kind beside a canary, each on a server of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", type=Path, required=True, help="the executable")
    parser.add_argument("--models", type=Path, default=Path("models"), help="the folder of models")
    parser.add_argument("--model", default="relevance", help="a model of pairs, which is the canary")
    parser.add_argument("--kinds", default=",".join(KINDS), help="which kinds, separated by commas")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each kind lasts")
    arguments = parser.parse_args()
    told: dict[str, Any] = {}
    for kind in arguments.kinds.split(","):
        address = free_address()
        command = [str(arguments.server), "serve", "--models", str(arguments.models), "--listen", address]
        command += ["--log", "error", "--default-model", arguments.model, "--buffered-mb", str(BUFFERED_MB)]
        with (
            tempfile.TemporaryFile() as log,
            running(command, partial(answers, f"http://{address}/health/ready"), log) as process,
        ):
            known = reference(f"http://{address}", arguments.model)
            ready = resident_bytes(process.pid)
            usual = beside(address, arguments.model, process.pid, None, arguments.seconds, known)
            met = beside(address, arguments.model, process.pid, KINDS[kind], arguments.seconds, known)
            body = {"model": arguments.model, "inputs": [{"prompt": PAIRS[0][0], "response": "after"}]}
            alive = wire.request(f"http://{address}", "POST", "/v1/score", body, sender=ADDRESS)[0] == 200
        told[kind] = {
            "usual": usual,
            "beside": met,
            "p99_ratio": round(met["p99_ms"] / max(usual["p99_ms"], 0.1), 2),
            "ready_mib": ready >> 20,
            "memory_allowed_mib": int(1.5 * (ready >> 20)) + BUFFERED_MB,
            "alive": alive,
        }
        sys.stderr.write(f"{kind}: {json.dumps(told[kind])}\n")
    sys.stdout.write(json.dumps(told, indent=2) + "\n")
    return int(any(kind["beside"]["wrong"] or not kind["alive"] for kind in told.values()))


if __name__ == "__main__":
    sys.exit(main())
