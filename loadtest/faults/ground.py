"""What every fault stands on: a repository of small models, a server, and what is told of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest import wire
from loadtest.tiny import expected, write_tiny
from tools.server_process import answers, free_address

START_SECONDS = 60.0
POLL_SECONDS = 0.02
CLOSE = 1e-4
TEXT = "100 20 7"
# Two models, so that one may fail while the other is served.
MODEL = "sum"
OTHER = "other"


class Broken(Exception):
    """The server did what it must not do."""


class Skipped(Exception):
    """This machine can't do it, and why."""


@dataclass(frozen=True)
class Fault:
    """Something that fails, and what does it; that says what it did and found, or raises Broken or Skipped."""

    name: str
    run: Callable[[Ground], str]


@dataclass(frozen=True)
class Ground:
    """The program, a folder that is empty at first, and how often to do what chance decides."""

    executable: Path
    folder: Path
    times: int

    @property
    def models(self) -> Path:
        """The repository."""
        return self.folder / "models"

    def lay(self) -> None:
        """Writes both models."""
        for model in (MODEL, OTHER):
            write_tiny(self.models / model)


@dataclass
class Karat:
    """A server's process."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def request(self, method: str, path: str, body: Any = None, timeout: float = 60.0) -> tuple[int, Any]:
        """Status and JSON, or text, of a reply. Raises OSError or HTTPException without one."""
        status, content = wire.request(self.url, method, path, body, timeout)
        try:
            return status, json.loads(content)
        except ValueError:
            return status, content.decode(errors="replace")

    def score(self, text: str = TEXT, model: str = MODEL) -> float:
        """A text's score before transforms; raises Broken when it isn't answered."""
        status, reply = self.request("POST", "/v1/score", {"model": model, "inputs": [{"text": text}]})
        if status != 200:
            raise Broken(f"{model} answers {status}: {reply}")
        return float(reply["results"][0]["raw"])

    def check(self, wanted: float | None = None, model: str = MODEL) -> None:
        """Raises Broken unless a text has the score that it must have; each time another text, which no cache knows."""
        text = f"{TEXT} {10 + time.monotonic_ns() % 290}"
        found = self.score(text, model)
        wanted = expected(text) if wanted is None else wanted
        if abs(found - wanted) > CLOSE:
            raise Broken(f"{model} gives {text!r} {found} where {wanted} is right")

    def load(self, model: str = MODEL) -> tuple[int, Any]:
        """Has a model loaded as it lies there now."""
        return self.request("POST", f"/v1/models/{model}/load", {})

    def card(self, model: str = MODEL) -> Any:
        """What is told of a model."""
        return self.request("GET", f"/v1/models/{model}")[1]

    def wait(self, is_so: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
        """Waits until something is so; raises Broken when it takes longer, or the server ends."""
        deadline = time.monotonic() + seconds
        while not is_so():
            if self.process.poll() is not None:
                raise Broken(f"the server ended with {self.process.returncode}: {self.log.read_text()[-500:]}")
            if time.monotonic() > deadline:
                raise Broken(f"{what}: not within {seconds:g} s")
            time.sleep(POLL_SECONDS)

    def wait_ready(self) -> None:
        """Waits until it is ready."""
        self.wait(lambda: answers(f"{self.url}/health/ready"), "ready")

    def kill(self) -> None:
        """Ends it as the kernel does that has no memory left."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def serving(
    ground: Ground,
    *flags: str,
    ready: bool = True,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Karat]:
    """A server of the ground's models; raises Broken where it doesn't end by itself and well when it is told to."""
    address = free_address()
    log = ground.folder / "karat.log"
    command = [str(ground.executable), "serve", "--models", str(ground.models), "--listen", address, "--log", "warn"]
    command += [*flags, "--cache-mb", "0"]
    with log.open("wb") as written:
        process = subprocess.Popen(command, stderr=written, env={**os.environ, **(environment or {})})
    karat = Karat(f"http://{address}", process, log)
    try:
        if ready:
            karat.wait_ready()
        yield karat
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            status = process.wait(60)
            if status != 0:
                raise Broken(f"ended with {status} after SIGTERM: {log.read_text()[-500:]}")
        if b"panicked" in log.read_bytes():
            raise Broken(f"it panicked: {log.read_text()[-500:]}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
