"""Kills a server at random moments under load, and looks whether anything that it acknowledged is lost.

make kill-check TIMES=50

Each time, threads report outcomes, send jobs and set a normaliser's state; the process gets SIGKILL in between; then a
server with the same folder must know every outcome, every row of every job that was accepted, and a state of the
normaliser that is the last one acknowledged or a later one that was on its way.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.server_process import answers, free_address

GRAPHS = Path("tests/graphs")
MANIFEST = """\
transforms = ["running_normalise"]
[graph]
file = "sum.onnx"
[text]
render = "raw"
special_tokens = false
pad_token = "[PAD]"
max_tokens = 64
"""
ROWS = 200


def call(method: str, url: str, body: bytes | None = None) -> Any:
    """The JSON of a reply, or its text where that is JSON Lines. Raises OSError without a reply of the 2xx."""
    request = urllib.request.Request(url, data=body, method=method)  # noqa: S310 - a server that was started here
    with urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310
        content = reply.read().decode()
        return content if "ndjson" in reply.headers["content-type"] else json.loads(content)


@dataclass
class Acknowledged:
    """What a server said that it has."""

    outcomes: int = 0
    jobs: list[str] = field(default_factory=list)
    states: list[int] = field(default_factory=list)
    sent_states: list[int] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def report_outcomes(url: str, known: Acknowledged, number: int) -> None:
    """Scores a few samples and reports what came of each."""
    inputs = [{"text": str(10 + (number * 7 + place) % 280)} for place in range(8)]
    body = {"model": "sum", "run": "killed", "step": number, "inputs": inputs, "transforms": []}
    scored = call("POST", f"{url}/v1/score", json.dumps(body).encode())
    outcomes = [{"request": scored["id"], "index": place, "value": place % 2} for place in range(8)]
    told = call("POST", f"{url}/v1/runs/killed/outcomes", json.dumps({"outcomes": outcomes}).encode())
    with known.lock:
        known.outcomes += told["accepted"]


def send_job(url: str, known: Acknowledged, number: int) -> None:
    """Sends a job."""
    rows = "".join(json.dumps({"text": str(10 + (number + row) % 280)}) + "\n" for row in range(ROWS))
    job = call("POST", f"{url}/v1/jobs", b'{"model": "sum", "transforms": []}\n' + rows.encode())
    with known.lock:
        known.jobs.append(job["id"])


def set_state(url: str, known: Acknowledged, number: int) -> None:
    """Freezes the normaliser with a state that tells which one it is."""
    with known.lock:
        known.sent_states.append(number)
    body = {"frozen": True, "state": {"count": number, "mean": 0.0, "variance": 1.0}}
    told = call("PUT", f"{url}/v1/models/sum/normaliser", json.dumps(body).encode())
    with known.lock:
        known.states.append(told["links"][0]["count"])


def press(url: str, known: Acknowledged, stop: threading.Event, work: Any, first: int) -> None:
    """Does one kind of work again and again until the server is gone."""
    number = first
    while not stop.is_set():
        number += 1
        try:
            work(url, known, number)
        except (OSError, urllib.error.HTTPError, json.JSONDecodeError, ValueError):
            return


def start(server: Path, models: Path, state: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A server that is ready, and where it listens."""
    address = free_address()
    flags = ["serve", "--models", str(models), "--state", str(state), "--listen", address, "--log", "error"]
    process = subprocess.Popen([server, *flags, "--calibration-seconds", "0"])
    url = f"http://{address}"
    for _ in range(600):
        if answers(f"{url}/health/ready"):
            return process, url
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise SystemExit("the server doesn't start again after it was killed")


def check(url: str, known: Acknowledged) -> None:
    """Raises SystemExit when something is missing."""
    if known.outcomes:
        found = call("GET", f"{url}/v1/runs/killed")["models"][0]["outcomes"]["samples"]
        if found < known.outcomes:
            raise SystemExit(f"{known.outcomes} outcomes were acknowledged, and {found} are there")
    for job in known.jobs:
        told = call("GET", f"{url}/v1/jobs/{job}")
        while told["state"] == "running":
            time.sleep(0.1)
            told = call("GET", f"{url}/v1/jobs/{job}")
        results = call("GET", f"{url}/v1/jobs/{job}/results?limit={ROWS}").splitlines()
        places = [json.loads(line)["index"] for line in results]
        if told["rows"] != ROWS or places != list(range(ROWS)):
            raise SystemExit(f"the job {job} has {len(places)} of {ROWS} rows")
    if known.states:
        count = call("GET", f"{url}/v1/models/sum/normaliser")["links"][0]["count"]
        last = max(known.states)
        if not (count >= last and count in known.sent_states):
            raise SystemExit(f"the normaliser has the state {count}, and {last} was acknowledged")


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Kill a server again and again, and look what is lost.")
    parser.add_argument("--server", type=Path, default=Path("target/release/karat"))
    parser.add_argument("--tokenizer", type=Path, default=Path("models/harmless/tokenizer.json"))
    parser.add_argument("--times", type=int, default=50)
    arguments = parser.parse_args()
    known = Acknowledged()
    with tempfile.TemporaryDirectory() as folder:
        models, state = Path(folder) / "models", Path(folder) / "state"
        (models / "sum").mkdir(parents=True)
        (models / "sum" / "model.toml").write_text(MANIFEST)
        shutil.copy(GRAPHS / "sum.onnx", models / "sum")
        shutil.copy(arguments.tokenizer, models / "sum" / "tokenizer.json")
        process, url = start(arguments.server, models, state)
        for kill in range(arguments.times):
            stop = threading.Event()
            first = (kill + 1) * 100_000
            kinds = [report_outcomes, report_outcomes, send_job, set_state]
            threads = [
                threading.Thread(target=press, args=(url, known, stop, work, first + place * 10_000))
                for place, work in enumerate(kinds)
            ]
            for thread in threads:
                thread.start()
            time.sleep(random.uniform(0.05, 1.0))
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            stop.set()
            for thread in threads:
                thread.join()
            process, url = start(arguments.server, models, state)
            check(url, known)
            print(
                f"kill {kill + 1}: {known.outcomes} outcomes, {len(known.jobs)} jobs, "
                f"{len(known.states)} states, all there",
                flush=True,
            )
            known.jobs.clear()
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
