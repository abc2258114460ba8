"""A karat of one's own: a process that listens on loopback for as long as its owner lives."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from weakref import finalize

from karat_client.client import Client
from karat_client.errors import KaratError, ModelsFailed, TimeoutPassed

LOGGER = logging.getLogger("karat_client")

_DEATH_SIGNAL = 1
"""`PR_SET_PDEATHSIG` of Linux's prctl."""


class ServerBeside:
    """Starts `command` with an address to listen at, and again when it has ended.

    `start_seconds` is how long models may take to load.
    """

    def __init__(self, command: Sequence[str], start_seconds: float) -> None:
        self._command = list(command)
        self._start_seconds = start_seconds
        self._address = f"127.0.0.1:{_free_port()}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Its URL, once every model has warmed up. Does nothing when it runs.

        Raises ModelsFailed when it ends instead of getting ready, and TimeoutPassed.
        """
        url = f"http://{self._address}"
        if self._process is not None and self._process.poll() is None:
            return url
        if self._process is not None:
            LOGGER.warning("%s ended with %s and is started anew", self._command[0], self._process.returncode)
        # The death of this process by itself would leave the server behind, with its memory.
        follow = _follow(os.getpid()) if sys.platform == "linux" else None
        command = [*self._command, "--listen", self._address]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=follow)
        finalize(self, _end, self._process)
        self._wait(url, self._process)
        return url

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            _end(self._process)

    def _wait(self, url: str, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self._start_seconds
        with Client(url) as client:
            while process.poll() is None:
                try:
                    if client.ready(timeout=10.0):
                        return
                except KaratError:
                    # It doesn't listen yet.
                    pass
                if time.monotonic() > deadline:
                    self.close()
                    raise TimeoutPassed(f"{self._command[0]} was not ready in {self._start_seconds:.0f} s")
                time.sleep(0.1)
        raise ModelsFailed(
            f"{self._command[0]} ended with {process.returncode} before it was ready; its output says why"
        )


def _follow(parent: int) -> Callable[[], None]:
    """What a new process does to end with its parent."""
    prctl = ctypes.CDLL(None).prctl

    def follow() -> None:
        prctl(_DEATH_SIGNAL, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return follow


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
