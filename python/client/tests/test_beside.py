"""A server of one's own: a stand-in that answers as karat does while it starts, runs, and dies."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from karat_client import errors
from karat_client.beside import ServerBeside

STAND_IN = """
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    asked = 0
    def do_GET(self):
        Handler.asked += 1
        ready = Handler.asked > 2
        body = json.dumps({"status": "ready" if ready else "loading", "models": {}}).encode()
        self.send_response(200 if ready else 503)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass

host, port = sys.argv[sys.argv.index("--listen") + 1].split(":")
print("started", flush=True)
HTTPServer((host, int(port)), Handler).serve_forever()
"""


def stand_in(program: str = STAND_IN) -> list[str]:
    return [sys.executable, "-c", program]


def test_it_is_started_anew_where_it_ends_and_ends_with_its_owner() -> None:
    server = ServerBeside(stand_in(), 60.0)
    url = server.start()
    first = server._process
    assert first is not None
    assert server.start() == url
    assert server._process is first, "it runs"
    first.kill()
    first.wait()
    assert server.start() == url
    second = server._process
    assert second is not None
    assert second.poll() is None
    server.close()
    assert second.poll() is not None


def test_one_that_ends_before_it_is_ready_is_told() -> None:
    with pytest.raises(errors.ModelsFailed, match="ended with 3"):
        ServerBeside(stand_in("import sys; sys.exit(3)"), 60.0).start()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_it_does_not_outlive_an_owner_that_is_killed() -> None:
    owner = (
        "from karat_client.beside import ServerBeside\n"
        f"server = ServerBeside({stand_in()!r}, 60.0)\n"
        "server.start()\n"
        "print(server._process.pid, flush=True)\n"
        "input()\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", owner], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        assert int(process.stdout.readline()) > 0
        process.send_signal(signal.SIGKILL)
        # The pipe closes when the last of them has ended.
        assert process.stdout.read() == ""
