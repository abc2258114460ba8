"""Clients that are fetched when the tests run: none of their code is part of karat.

Each is one file out of a wheel, loaded by its path. What it imports beyond the libraries in the project's group
`real-clients` is replaced by stand-ins, since the frameworks themselves would bring gigabytes that the requests don't
need.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from tests.server_files import CACHE
from tools.packages import Package, fetch

# The wheels are tagged for one Python and one system but hold Python code alone.
_ANY_SYSTEM = ("--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp")
_LINUX = (*_ANY_SYSTEM, "--abi", "cp311", "--platform", "manylinux1_x86_64")

OPENRLHF = {
    "0.11.2": Package("openrlhf", "0.11.2", "c969d70db03a70724c3d8a5a01186c6e0728bce624fb3dff95e39b5396acefa6", _LINUX),
    "0.11.0": Package("openrlhf", "0.11.0", "b1d78d979cfc3a8241f1a7b2f6308bb19b061ae748528f20443df046e8d181cf", _LINUX),
    "0.8.5": Package("openrlhf", "0.8.5", "e621b8b5aa586559faf45397b6afe01a925fc28d36fb11be0605d8a0cee08182", _LINUX),
}
VERL = Package("verl", "0.9.1", "db6e6f2a8d9d5808d9ec32d357a42319fdc6967df688ff9d9810050f49bfdd14")
LLAMA_FACTORY = Package("llamafactory", "0.9.5", "10776e9b259798bf65f6c5343f6298f0302e92e9cd47472abe29eef69e286c6a")


def load(package: Package, member: str, stand_ins: Mapping[str, Mapping[str, Any]], folder: Path) -> ModuleType:
    """The module whose path in the package's wheel ends with `member`, such as `openrlhf/utils/agent.py`.

    `stand_ins` are the modules that it can't import here, with what is taken from them. The file is unpacked into
    `folder`.
    """
    with zipfile.ZipFile(fetch(package, CACHE)) as wheel:
        (found,) = [name for name in wheel.namelist() if name == member or name.endswith(f"/purelib/{member}")]
        path = folder / package.version / member
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wheel.read(found))
    name = member.removesuffix(".py").replace("/", ".")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with mock.patch.dict(sys.modules, _modules(name, stand_ins)):
        spec.loader.exec_module(module)
    return module


def _modules(name: str, stand_ins: Mapping[str, Mapping[str, Any]]) -> dict[str, ModuleType]:
    """The stand-ins, and the packages that they and the module are in."""
    made: dict[str, ModuleType] = {}
    for dotted in (name.rpartition(".")[0], *stand_ins):
        parts = dotted.split(".")
        for end in range(1, len(parts) + 1):
            package = ".".join(parts[:end])
            if package not in made:
                made[package] = ModuleType(package)
                made[package].__path__ = []
    for dotted, names in stand_ins.items():
        vars(made[dotted]).update(names)
    return made


LOGGING = {"init_logger": logging.getLogger}


class WithoutPauses:
    """A module such as `asyncio` or `time`, whose `sleep` returns at once and is written down in `pauses`.

    `sleep` is the name's stand-in, which tells the clients' own pauses between tries from all others.
    """

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self.pauses: list[float] = []
        self.sleep: Callable[[float], Any] = self._awaited if module.__name__ == "asyncio" else self.pauses.append

    async def _awaited(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)
