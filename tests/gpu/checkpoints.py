"""Writes checkpoints of random weights where they are measured: sixteen gigabytes in seconds, from a few numbers.

Only the standard library is used. Numbers are drawn once and repeated, for what they are changes no kernel's speed:
each tensor begins at another of them, and is scaled so that states keep their size through the layers.
"""

from __future__ import annotations

import array
import json
import math
import os
import random
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from tests.gpu import texts
from tests.gpu.shapes import Decoder, Shape

SEED = 8
# A prime, so that no two rows of a matrix are the same.
DRAWN = 1_048_573
BYTES = {"F32": 4, "BF16": 2}
SHARDS = 8
# In a file of their own, so that models with other heads have the same trunk's files.
HEADS = ("score.weight", "lm_head.weight")
# Small beside what a layer adds, or the last token alone would decide a score.
EMBEDDING_SPREAD = 0.2
CRITIQUE = '\n[critique]\nrequest = "{prompt} {response}"\nmax_tokens = 256\n'


@cache
def _drawn() -> array.array[float]:
    generator = random.Random(SEED)
    return array.array("f", (generator.gauss(0.0, 1.0) for _ in range(DRAWN)))


@cache
def _numbers(dtype: str, centre: float, spread: float) -> bytes:
    """All that was drawn, moved and scaled, as a file holds it."""
    values = array.array("f", (centre + spread * value for value in _drawn()))
    raw = values.tobytes()
    if dtype == "F32":
        return raw
    half = bytearray(len(raw) // 2)
    # The upper half of each number.
    half[0::2], half[1::2] = raw[2::4], raw[3::4]
    return bytes(half)


def _numbers_of(name: str, shape: tuple[int, ...], dtype: str) -> bytes:
    if "embed" in name:
        return _numbers(dtype, 0.0, EMBEDDING_SPREAD)
    if len(shape) == 2:
        return _numbers(dtype, 0.0, 1 / math.sqrt(shape[1]))
    # Norms scatter about 1, and biases about 0, so that leaving one out shows.
    return _numbers(dtype, 1.0 if name.endswith("norm.weight") or "LayerNorm.weight" in name else 0.0, 0.1)


def _write_shard(path: Path, tensors: dict[str, tuple[int, ...]], dtype: str) -> None:
    header, end = {}, 0
    for name, shape in tensors.items():
        start, end = end, end + BYTES[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    encoded = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb", buffering=0) as stream:
        stream.write(struct.pack("<Q", len(encoded)) + encoded)
        for name, shape in tensors.items():
            numbers, left = memoryview(_numbers_of(name, shape, dtype)), BYTES[dtype] * math.prod(shape)
            at = zlib.crc32(name.encode()) % DRAWN * BYTES[dtype]
            while left:
                left -= stream.write(numbers[at : at + left])
                at = 0


def write_weights(folder: Path, shape: Shape) -> None:
    """Writes the tensors in shards, side by side, but for the shards that are there already."""
    names = [name for name in shape.tensors if name not in HEADS]
    parts = {f"trunk-{shard}.safetensors": names[shard::SHARDS] for shard in range(SHARDS)}
    parts["head.safetensors"] = [name for name in shape.tensors if name in HEADS]
    places = {name: file for file, part in parts.items() for name in part}
    for name, size in shape.tensors.items():
        # Drawn by one thread, once.
        _numbers_of(name, size, shape.dtype)
    with ThreadPoolExecutor(min(SHARDS, os.cpu_count() or 1)) as writers:
        jobs = [
            writers.submit(_write_shard, folder / file, {name: shape.tensors[name] for name in part}, shape.dtype)
            for file, part in parts.items()
            if part and not (folder / file).exists()
        ]
        for job in jobs:
            job.result()
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index) + "\n")


def write_checkpoint(folder: Path, shape: Shape, provider: str, *, as_on_gpu: bool = True, options: str = "") -> None:
    """Writes the folder of a model that runs on `provider`, in the form that a GPU takes (`as_on_gpu`) or in that of a
    processor; `options` are its manifest's `[scheduling]`.

    What is whole already stays as it is, but for the manifest.
    """
    done = folder / "complete"
    if not done.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        vocabulary = texts.vocabulary(shape)
        (folder / "config.json").write_text(json.dumps(shape.config))
        (folder / "tokenizer.json").write_text(json.dumps(vocabulary.tokenizer()))
        (folder / "tokenizer_config.json").write_text(json.dumps(vocabulary.settings()))
        write_weights(folder, shape)
        done.touch()
    write_manifest(folder, shape, provider, as_on_gpu=as_on_gpu, options=options)


def write_manifest(folder: Path, shape: Shape, provider: str, *, as_on_gpu: bool = True, options: str = "") -> None:
    """Writes `model.toml`."""
    writes = isinstance(shape, Decoder) and shape.writes
    head = f'{{ logit = {{ token = "{texts.TOKEN}" }} }}' if writes else '"scalar"'
    providers = provider if provider.startswith("{") else f'"{provider}"'
    output = 'output = "logits"\n' if writes else ""
    # On a GPU a checkpoint has that form by itself.
    form = f'form = "{shape.form}"\n' if as_on_gpu and provider == "cpu" else ""
    (folder / "model.toml").write_text(
        f'description = "Random weights, for measuring"\nhead = {head}\nproviders = [{providers}]\n\n'
        f'[graph]\ncheckpoint = "."\n{output}{form}\n'
        f"[text]\nrender = {shape.render}\nmax_tokens = {shape.longest}\n"
        + (f"\n[scheduling]\n{options}\n" if options else "")
        + (CRITIQUE if writes else "")
    )


def lend(source: Path, target: Path, pattern: str = "*") -> None:
    """Links the files of the checkpoint `source` that have such a name into `target`, but for its manifest."""
    target.mkdir(parents=True, exist_ok=True)
    for file in source.glob(pattern):
        if file.name != "model.toml" and not (target / file.name).exists():
            os.link(file, target / file.name)
