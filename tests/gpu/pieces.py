"""Files in compressed pieces, for machines that take only small ones.

Files are cut into chunks that are compressed each by itself, so that both ends use all cores, and chunks are put
together into pieces of about the same size. Only the standard library: one of the ends has no network.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

# A copy of a whole working tree of 64 MiB at most travels with each, in the narrowest way of copying that is known.
LARGEST_PIECE = 50_000_000
CHUNK = 4 << 20
INDEX = "pieces.json"
# The most that is gained within the time that it takes; larger presets gain a hundredth.
PRESET = 6


class Damaged(Exception):
    """A piece is missing, or the file that they make is not the one that was packed."""


def _compress(data: bytes) -> bytes:
    return lzma.compress(data, preset=PRESET)


def _chunks(path: Path) -> Iterable[bytes]:
    with path.open("rb") as stream:
        while block := stream.read(CHUNK):
            yield block


def pack(files: dict[str, Path], folder: Path, largest: int = LARGEST_PIECE) -> list[Path]:
    """Writes files into pieces of at most `largest` bytes in `folder`, with an index of what they make; returns the
    pieces. A chunk must fit a piece."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces: list[Path] = []
    filled = largest
    index = []
    with ProcessPoolExecutor() as workers:
        for name, path in files.items():
            digest, places = hashlib.sha256(), []
            for block in _chunks(path):
                digest.update(block)
            for packed in workers.map(_compress, _chunks(path)):
                if filled + len(packed) > largest:
                    pieces.append(folder / f"piece-{len(pieces)}.bin")
                    pieces[-1].write_bytes(b"")
                    filled = 0
                with pieces[-1].open("ab") as stream:
                    stream.write(packed)
                places.append([pieces[-1].name, filled, len(packed)])
                filled += len(packed)
            executable = os.access(path, os.X_OK)
            index.append({"name": name, "sha256": digest.hexdigest(), "executable": executable, "chunks": places})
    (folder / INDEX).write_text(json.dumps(index) + "\n")
    return pieces


def unpack(folder: Path, target: Path) -> list[Path]:
    """Joins the pieces of `folder` into files below `target`; returns them.

    Files that are there already are kept when they are the right ones. Raises Damaged when a piece is missing or a file
    comes out different.
    """
    try:
        index = json.loads((folder / INDEX).read_text())
    except FileNotFoundError as error:
        raise Damaged(f"{folder} has no {INDEX}: make the bundle first, and copy all of it") from error
    wanted = {place[0] for entry in index for place in entry["chunks"]}
    missing = sorted(name for name in wanted if not (folder / name).is_file())
    if missing:
        raise Damaged(f"{folder} lacks {', '.join(missing)}: copy them as well")
    with ThreadPoolExecutor(os.cpu_count() or 1) as workers:
        return [_unpacked(folder, entry, target / entry["name"], workers) for entry in index]


def _unpacked(folder: Path, entry: dict[str, Any], path: Path, workers: ThreadPoolExecutor) -> Path:
    if path.is_file() and _digest(_chunks(path)) == entry["sha256"]:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    digest = hashlib.sha256()

    def plain(place: list[Any]) -> bytes:
        name, start, size = place
        with (folder / name).open("rb") as stream:
            stream.seek(start)
            try:
                return lzma.decompress(stream.read(size))
            except (lzma.LZMAError, EOFError) as error:
                raise Damaged(f"{name}: {error}; copy it again") from error

    with partial.open("wb") as sink:
        for data in workers.map(plain, entry["chunks"]):
            digest.update(data)
            sink.write(data)
    if digest.hexdigest() != entry["sha256"]:
        raise Damaged(f"{entry['name']}: the pieces make another file; copy them again")
    if entry["executable"]:
        partial.chmod(0o755)
    partial.replace(path)
    return path


def _digest(blocks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()
