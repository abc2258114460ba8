"""Files in compressed pieces, for machines that take only small ones.

Only the standard library: both ends run it, and one of them has no network.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
from pathlib import Path
from typing import Any

# Below 60 MiB, which the narrowest ways of copying take.
LARGEST_PIECE = 119 * 512 * 1024
INDEX = "pieces.json"
BLOCK = 1 << 20


class Damaged(Exception):
    """A piece is missing, or the file that they make is not the one that was packed."""


class _Writer:
    """Writes a stream into numbered files of at most `largest` bytes."""

    def __init__(self, folder: Path, name: str, largest: int) -> None:
        self._folder, self._name, self._largest = folder, name, largest
        self._buffer = bytearray()
        self.pieces: list[str] = []

    def write(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= self._largest:
            self._flush(self._largest)

    def close(self) -> None:
        if self._buffer or not self.pieces:
            self._flush(len(self._buffer))

    def _flush(self, count: int) -> None:
        piece = f"{self._name.replace('/', '-')}.xz.{len(self.pieces):03}"
        (self._folder / piece).write_bytes(self._buffer[:count])
        del self._buffer[:count]
        self.pieces.append(piece)


def pack(files: dict[str, Path], folder: Path, largest: int = LARGEST_PIECE) -> None:
    """Compresses each file into pieces in `folder`, with an index of what they make."""
    folder.mkdir(parents=True, exist_ok=True)
    index = []
    for name, path in files.items():
        writer, digest = _Writer(folder, name, largest), hashlib.sha256()
        compressor = lzma.LZMACompressor(preset=4)
        with path.open("rb") as stream:
            while block := stream.read(BLOCK):
                digest.update(block)
                writer.write(compressor.compress(block))
        writer.write(compressor.flush())
        writer.close()
        index.append(
            {
                "name": name,
                "sha256": digest.hexdigest(),
                "executable": os.access(path, os.X_OK),
                "pieces": writer.pieces,
            }
        )
    (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n")


def unpack(folder: Path, target: Path) -> list[Path]:
    """Joins the pieces of `folder` into files below `target`; returns them.

    Files that are there already are kept when they are the right ones. Raises
    Damaged when a piece is missing or a file comes out different.
    """
    try:
        index = json.loads((folder / INDEX).read_text())
    except FileNotFoundError as error:
        raise Damaged(f"{folder} has no {INDEX}: make the bundle first") from error
    found = []
    for entry in index:
        path = target / entry["name"]
        if not path.is_file() or _digest(path) != entry["sha256"]:
            _join(folder, entry, path)
        found.append(path)
    return found


def _join(folder: Path, entry: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    decompressor, digest = lzma.LZMADecompressor(), hashlib.sha256()
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as sink:
        for piece in entry["pieces"]:
            try:
                data = (folder / piece).read_bytes()
                plain = decompressor.decompress(data)
            except (FileNotFoundError, lzma.LZMAError, EOFError) as error:
                raise Damaged(f"{piece}: {error}; copy it again") from error
            digest.update(plain)
            sink.write(plain)
    if digest.hexdigest() != entry["sha256"]:
        raise Damaged(f"{entry['name']}: the pieces make another file; copy them again")
    if entry["executable"]:
        partial.chmod(0o755)
    os.replace(partial, path)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
