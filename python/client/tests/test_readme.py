"""The README's examples parse, and import only what is there."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[1] / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_examples_use_names_that_exist(block: str) -> None:
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("karat_client"):
            module = importlib.import_module(node.module)
            for name in node.names:
                assert hasattr(module, name.name) or importlib.import_module(f"{node.module}.{name.name}")


def test_there_is_an_example_for_each_callable() -> None:
    for module in ("trl", "verl", "ms_swift", "rewardbench", "ray_data"):
        assert any(f"karat_client.{module}" in block for block in BLOCKS)
