"""A server for the length of a `with` block: karat, or anything else that says over HTTP when it is ready.

Only the standard library is used: the GPU check starts servers where nothing else is installed.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

START_SECONDS = 120.0
STOP_SECONDS = 60.0
POLL_SECONDS = 0.05
TOLD_BYTES = 4000


def free_address() -> str:
    """Host and port of this machine where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def answers(url: str) -> bool:
    """Whether a GET of `url` is answered with 200 now."""
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:  # noqa: S310 - a server that was started here
            return bool(reply.status == 200)
    except OSError:
        return False


@contextmanager
def running(
    command: Sequence[str],
    is_ready: Callable[[], bool],
    log: BinaryIO,
    *,
    start_seconds: float = START_SECONDS,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs `command`, whose output goes to `log`, once it is ready; SIGTERM ends it.

    What takes longer to end is killed. Raises SystemExit, with the end of its output, when it can't be started, isn't
    ready in time, or ends by itself.
    """
    try:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=folder, start_new_session=True
        )
    except OSError as error:
        raise SystemExit(f"cannot start {command[0]}: {error.strerror}") from error
    try:
        deadline = time.monotonic() + start_seconds
        while not is_ready():
            if process.poll() is not None:
                raise _failed(command, log, f"exited with {process.returncode} before it was ready")
            if time.monotonic() > deadline:
                raise _failed(command, log, f"was not ready within {start_seconds:g} s")
            time.sleep(POLL_SECONDS)
        yield process
        if process.poll() is not None:
            raise _failed(command, log, f"exited with {process.returncode} by itself")
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            # With the workers that it may have started.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _failed(command: Sequence[str], log: BinaryIO, what: str) -> SystemExit:
    log.seek(0)
    output = log.read().decode(errors="replace")[-TOLD_BYTES:]
    return SystemExit(f"{output}\n{' '.join(command)}\n  {what}")


class ServerProcess:
    """Starts `karat serve` on a free loopback port; leaving the block drains it.

    Raises SystemExit as `running` does, and when the server doesn't exit with 0.
    """

    def __init__(self, executable: Path, models: Path, *flags: str) -> None:
        address = free_address()
        self.url = f"http://{address}"
        self._command = [str(executable), "serve", "--models", str(models), "--listen", address, *flags]

    def __enter__(self) -> ServerProcess:
        with ExitStack() as stack:
            self._log = stack.enter_context(tempfile.TemporaryFile())
            ready = partial(answers, f"{self.url}/health/ready")
            stack.push(self._drained)
            self._process = stack.enter_context(running(self._command, ready, self._log))
            self._running = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.__exit__(kind, error, trace)

    def _drained(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._process.returncode != 0:
            status = self._process.returncode
            raise _failed(self._command, self._log, f"exited with {status} after SIGTERM")

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._process.pid
