"""A real server with the demo models, for all tests here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest

from karat_client import Client
from tests.server_files import MODELS, ROOT, executable
from tools.server_process import ServerProcess

GRAPHS = ROOT / "tests/graphs"
# Each number from 10 to 299 is a token of its own.
VOCABULARY = {"[CLS]": 1, "[SEP]": 2, "[UNK]": 3, "[PAD]": 9} | {str(number): number for number in range(10, 300)}
MANIFEST = """
head = "log_probability"
[graph]
file = "tiny_decoder_lm.onnx"
[text]
render = { jinja = "{% for m in messages %}{{ m['content'] }} {% endfor %}" }
special_tokens = false
pad_token = "[PAD]"
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
    folder.mkdir()
    shutil.copy(GRAPHS / "tiny_decoder_lm.onnx", folder)
    (folder / "model.toml").write_text(MANIFEST)
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": VOCABULARY, "unk_token": "[UNK]"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with ServerProcess(executable(), folder.parent) as server:
        yield server.url
