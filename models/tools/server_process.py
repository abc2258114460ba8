"""A karat server for the length of a `with` block, and a client for its scores."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

START_SECONDS = 120
STOP_SECONDS = 60


class ServerProcess:
    """Starts `karat serve` on a free loopback port; leaving the block drains it.

    Raises SystemExit, with the server's own output, when it doesn't become
    ready or doesn't exit with 0 after SIGTERM.
    """

    def __init__(self, executable: Path, models: Path, *flags: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.url = f"http://{address}"
        self._command = [str(executable), "serve", "--models", str(models), "--listen", address]
        self._command += flags

    def __enter__(self) -> ServerProcess:
        self._log = tempfile.TemporaryFile()
        try:
            self._process = subprocess.Popen(
                self._command, stdout=self._log, stderr=subprocess.STDOUT
            )
        except OSError as error:
            raise SystemExit(f"cannot start {self._command[0]}: {error.strerror}") from error
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None:
                self._fail(f"exited with {self._process.returncode} before it was ready")
            if time.monotonic() > deadline:
                self._process.kill()
                self._fail(f"was not ready within {START_SECONDS} s")
            time.sleep(0.05)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._fail(f"was still running {STOP_SECONDS} s after SIGTERM")
        if status != 0 and kind is None:
            self._fail(f"exited with {status} after SIGTERM")
        self._log.close()

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._process.pid

    def _is_ready(self) -> bool:
        try:
            return Client(self.url).get("/health/ready")[0] == 200
        except OSError:
            return False

    def _fail(self, what: str) -> None:
        self._log.seek(0)
        output = self._log.read().decode(errors="replace")[-4000:]
        raise SystemExit(f"{output}\n{' '.join(self._command)}\n  {what}")


class Client:
    """One kept-alive connection to a karat server. Not for use by two threads."""

    def __init__(self, url: str, timeout: float = 300.0) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout)

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a GET."""
        self._connection.request("GET", path)
        response = self._connection.getresponse()
        return response.status, response.read()

    def score(self, request: dict[str, Any]) -> dict[str, Any]:
        """Posts to `/v1/score`; see `post`."""
        return self.post("/v1/score", request)

    def post(self, path: str, request: dict[str, Any]) -> dict[str, Any]:
        """Posts to a route, waiting as long as a 429 asks before it tries again.

        Raises RuntimeError with the server's problem document on any other status.
        """
        body = json.dumps(request)
        while True:
            self._connection.request("POST", path, body, {"content-type": "application/json"})
            response = self._connection.getresponse()
            content = response.read()
            if response.status == 200:
                return json.loads(content)
            if response.status != 429:
                raise RuntimeError(f"HTTP {response.status}: {content.decode(errors='replace')}")
            time.sleep(float(response.headers.get("retry-after", "1")))
