"""What all tests in Python share."""

from __future__ import annotations

import os

import pytest

from tests.server_files import ROOT


@pytest.fixture(scope="session", autouse=True)
def onnxruntime() -> None:
    """Tells servers where `make setup` has put ONNX Runtime's library, unless the environment does."""
    os.environ.setdefault("KARAT_ONNXRUNTIME", str(ROOT / ".karat/onnxruntime/lib/libonnxruntime.so"))
