"""A real server with the demo models, for all tests here."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from karat_client import Client
from tests.server_files import MODELS, ROOT, executable
from tools.server_process import ServerProcess

GRAPHS = ROOT / "tests/graphs"
MANIFEST = """
head = "log_probability"
[graph]
checkpoint = "."
[text]
render = { jinja = "{% for m in messages %}{{ m['content'] }} {% endfor %}" }
special_tokens = false
max_tokens = 200
[critique]
request = "{prompt} {response}"
max_tokens = 12
"""


@pytest.fixture(scope="session")
def url(onnxruntime: None) -> Iterator[str]:
    with ServerProcess(executable(), MODELS) as server:
        yield server.url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, "harmless") as client:
        yield client


@pytest.fixture(scope="session")
def critic(onnxruntime: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server whose model `critic` is a tiny language model."""
    folder = tmp_path_factory.mktemp("models") / "critic"
    # Each number from 10 to 299 is a token of its own.
    shutil.copytree(GRAPHS / "tiny_decoder_lm", folder)
    (folder / "model.toml").write_text(MANIFEST)
    with ServerProcess(executable(), folder.parent) as server:
        yield server.url
