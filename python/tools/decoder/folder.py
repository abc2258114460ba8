"""Writes a checkpoint as a model folder, and keeps graphs out of it that differ from numpy."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from onnx import TensorProto
from tokenizers import Tokenizer

from tools.decoder import parity
from tools.decoder.checkpoint import Checkpoint, refuse_leftovers
from tools.decoder.config import DecoderConfig, Unsupported
from tools.decoder.conversion import link_or_copy, write_float32
from tools.decoder.graph import build
from tools.decoder.weights import ArrayWeights, SafetensorsWeights, Weights
from tools.dialogues import load_tokenizer
from tools.onnx_file import write_model
from tools.tokenizer_file import write_tokenizer

GRAPH = "model.onnx"
WEIGHTS = "weights.safetensors"
TEMPLATE = "chat_template.jinja"
PARITY = "parity.json"
# What the graph is compared on: prose, numbers, code and letters beyond ASCII.
TEXTS = (
    "What is the capital of France? The capital of France is Paris.",
    "In 1969, 3 people flew 384,400 km; 2 of them walked on the moon for about 2.5 hours.",
    "def area(radius):\n    return 3.14159 * radius ** 2\n",
    "Ein Käse für Ångström, naïve café: 価格は百円です。",
)
DEFAULT_OUTPUTS = {
    "sequence": ("scores",),
    "token": ("scores",),
    "language_model": ("logits", "hidden"),
}


class WithHeads:
    """A trunk's weights and, beside them, the reward heads trained on it."""

    def __init__(self, trunk: Weights, heads: dict[str, np.ndarray]) -> None:
        self._trunk = trunk
        self._heads = ArrayWeights(heads)

    def names(self) -> set[str]:
        """As `Weights.names`."""
        return self._trunk.names() | self._heads.names()

    def shape(self, name: str) -> tuple[int, ...]:
        """As `Weights.shape`."""
        return self._of(name).shape(name)

    def read(self, name: str) -> np.ndarray:
        """As `Weights.read`."""
        return self._of(name).read(name)

    def initializer(self, name: str) -> TensorProto:
        """As `Weights.initializer`."""
        return self._of(name).initializer(name)

    def _of(self, name: str) -> Weights:
        return self._heads if name in self._heads.names() else self._trunk


@dataclass(frozen=True)
class Export:
    """What became of a checkpoint."""

    config: DecoderConfig
    outputs: tuple[str, ...]
    comparisons: list[parity.Comparison]
    converted: bool


def with_heads(config: DecoderConfig, heads: dict[str, np.ndarray]) -> DecoderConfig:
    """The configuration of a trunk whose scores are these heads': `score.weight` `[K, hidden]`."""
    if "score.weight" not in heads or set(heads) - {"score.weight", "score.bias"}:
        raise Unsupported(f"heads hold {sorted(heads)}: score.weight and score.bias are wanted")
    labels, width = heads["score.weight"].shape
    if width != config.hidden:
        raise Unsupported(f"heads read states of {width} numbers, the trunk gives {config.hidden}")
    # They were trained on the last token's state, whatever that token is.
    return replace(config, kind="sequence", labels=labels, pad_token=None)


def write_folder(
    checkpoint: Checkpoint,
    folder: Path,
    heads: dict[str, np.ndarray] | None = None,
    outputs: tuple[str, ...] | None = None,
    shared_weights: Path | None = None,
) -> Export:
    """Writes everything but the manifest into `folder`; raises Unsupported.

    Weights that aren't float32 are converted to `weights.safetensors`; with
    `shared_weights`, once to that file, which is then linked. A graph that
    differs from the reference is left as `model.unchecked.onnx` and not served.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = _place_weights(checkpoint, folder, shared_weights)
    config = checkpoint.config
    if heads:
        config, weights = with_heads(config, heads), WithHeads(weights, heads)
    outputs = outputs or DEFAULT_OUTPUTS[config.kind]
    graph = build(config, weights, outputs)
    refuse_leftovers(checkpoint, {tensor.name for tensor in graph.graph.initializer})
    write_tokenizer(checkpoint.tokenizer, folder / "tokenizer.json")
    if checkpoint.chat_template is not None:
        (folder / TEMPLATE).write_text(checkpoint.chat_template)
    unchecked = folder / "model.unchecked.onnx"
    write_model(graph, unchecked)
    texts = encode(load_tokenizer(str(folder / "tokenizer.json")), config.vocabulary)
    comparisons = parity.compare(config, weights, unchecked, outputs, texts)
    parity.record(comparisons, texts, folder / PARITY)
    os.replace(unchecked, folder / GRAPH)
    return Export(config, outputs, comparisons, converted=not checkpoint.files)


def encode(tokenizer: Tokenizer, vocabulary: int) -> list[list[int]]:
    """The token ids of `TEXTS`; raises Unsupported where they don't fit the embeddings."""
    texts = [tokenizer.encode(text).ids for text in TEXTS]
    largest = max(max(ids) for ids in texts)
    if largest >= vocabulary:
        raise Unsupported(
            f"the tokenizer gives token {largest}, and the embeddings end at {vocabulary - 1}: it is another model's"
        )
    return texts


def _place_weights(checkpoint: Checkpoint, folder: Path, shared: Path | None) -> Weights:
    """The checkpoint's float32 weights as files of `folder`."""
    files = list(checkpoint.files)
    if not files:
        target = shared or folder / WEIGHTS
        if shared is None or not shared.is_file():
            write_float32(checkpoint.weights, target)
        files = [target]
    for file in files:
        if file.parent.resolve() != folder.resolve():
            link_or_copy(file, folder / file.name)
    return SafetensorsWeights([folder / file.name for file in files])
