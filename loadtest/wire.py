"""Requests as they go over the wire, where the time that they take is measured.

karat's own client sends again what was refused, splits lists and checks replies: here nothing of that may happen, and
the servers of others are asked too. Only the standard library is used, for the GPU check runs where nothing else is.
"""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit


def request(
    url: str, method: str, path: str, body: Any = None, timeout: float = 300.0, sender: str | None = None
) -> tuple[int, bytes]:
    """Status and content of one request on a connection of its own, from the address `sender` of this machine."""
    source = None if sender is None else (sender, 0)
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout, source_address=source)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def get(url: str, path: str) -> bytes:
    """What a GET is answered with; raises RuntimeError unless that is 200."""
    return _successful(path, *request(url, "GET", path))


def post(url: str, path: str, body: Any, timeout: float = 300.0) -> Any:
    """The JSON that a POST is answered with; raises RuntimeError unless that is 200."""
    return json.loads(_successful(path, *request(url, "POST", path, body, timeout)))


def _successful(path: str, status: int, content: bytes) -> bytes:
    if status != 200:
        raise RuntimeError(f"{path}: HTTP {status}: {content.decode(errors='replace')}")
    return content
