"""Something between a client and karat that refuses on demand and counts what the client does then."""

from __future__ import annotations

import http.client
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import urlsplit

ALWAYS = 10**9


class Front:
    """Answers the first `times` requests with `status` and karat's headers of a refusal, and hands on all others."""

    def __init__(self, upstream: str, status: int = 503, times: int = 0) -> None:
        self.requests = 0
        front = self
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                with lock:
                    front.requests += 1
                    refused = front.requests <= times
                if refused:
                    self._answer(status, {"retry-after": "1"}, json.dumps({"detail": "too much waits"}).encode())
                    return
                connection = http.client.HTTPConnection(urlsplit(upstream).netloc, timeout=60)
                try:
                    connection.request("POST", self.path, body, dict(self.headers))
                    answer = connection.getresponse()
                    self._answer(answer.status, dict(answer.headers), answer.read())
                finally:
                    connection.close()

            def _answer(self, code: int, headers: dict[str, str], content: bytes) -> None:
                self.send_response(code)
                kept = {name.lower(): value for name, value in headers.items()}
                for name in ("content-type", "retry-after", "inference-header-content-length"):
                    if name in kept:
                        self.send_header(name, kept[name])
                if "content-type" not in kept:
                    self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the parent's name for it
                """Requests are counted, not printed."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Front:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
