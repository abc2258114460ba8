"""What the heads read: pooled states of the frozen MiniLM trunk, one pass a pair."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto
from safetensors.numpy import load
from tokenizers import Tokenizer

from tools.harmless import WEIGHTS
from tools.minilm import EncoderGraph, EncoderShape, MiniLM
from tools.packages import TRUNK, fetch_members

HIDDEN = EncoderShape.hidden
# Prompt and response together. The caller of every request asks for the cut:
# what is longer loses the end of its response.
MAX_TOKENS = 320
# A prompt that leaves its response less room than this is left out.
LEAST_RESPONSE_TOKENS = 32
BATCH = 8
PROGRESS_SECONDS = 20.0


@dataclass(frozen=True)
class Features:
    """Which layers of the trunk the heads read (0 is the embedding).

    Each layer gives the mean state of the response's tokens, and that mean
    times the mean state of the prompt's tokens, number by number.
    """

    layers: tuple[int, ...]

    @property
    def width(self) -> int:
        """Length of the feature vector."""
        return 2 * HIDDEN * len(self.layers)

    def of_pooled(self, pooled: np.ndarray, pooled_layers: tuple[int, ...]) -> np.ndarray:
        """The features in rows of `pooled_graph`'s output: `[rows, width]`."""
        states = pooled.reshape(len(pooled), len(pooled_layers), 2, HIDDEN)
        states = states[:, [pooled_layers.index(layer) for layer in self.layers]]
        response, prompt = states[:, :, 0], states[:, :, 1]
        return np.stack([response, response * prompt], axis=2).reshape(len(pooled), self.width)


def pooled_graph(cache: Path, layers: tuple[int, ...]) -> onnx.ModelProto:
    """`pooled` [batch, 2 * hidden * layers]: a layer's response mean, then its prompt mean."""
    builder, blocks = _pooled(cache, layers)
    output = builder.add("Concat", *blocks, axis=1, output="pooled")
    return builder.close("pooled", output, 2 * HIDDEN * len(layers))


def heads_graph(cache: Path, features: Features, weight: np.ndarray, bias: np.ndarray) -> onnx.ModelProto:
    """`logits` [batch, heads] = features @ weight + bias."""
    builder, blocks = _pooled(cache, features.layers)
    wide = []
    for block in blocks:
        response, prompt = builder.split(block, 2, axis=1)
        wide += [response, builder.add("Mul", response, prompt)]
    vector = builder.add("Concat", *wide, axis=1)
    product = builder.add("MatMul", vector, builder.constant("heads.weight", weight.astype(np.float32)))
    logits = builder.add("Add", product, builder.constant("heads.bias", bias.astype(np.float32)), output="logits")
    return builder.close("study", logits, len(bias))


def _pooled(cache: Path, layers: tuple[int, ...]) -> tuple[EncoderGraph, list[str]]:
    builder = EncoderGraph()
    weights = load(fetch_members(TRUNK, cache, [WEIGHTS])[WEIGHTS])
    states = MiniLM(weights, builder, EncoderShape(layers=max(layers))).hidden_states()
    pooling = _pooling_rows(builder)
    flat = builder.constant("flat", np.array([0, 2 * HIDDEN], np.int64))
    pooled = [builder.add("MatMul", pooling, states[layer]) for layer in layers]
    return builder, [builder.add("Reshape", rows, flat) for rows in pooled]


def _pooling_rows(builder: EncoderGraph) -> str:
    """What each token counts for in the response's and in the prompt's mean: [batch, 2, sequence].

    `[CLS]` and the separators go with the sentence that they stand in. A text
    without a second sentence has a response of zeros.
    """
    axis = builder.constant("axis_1", np.array([1], np.int64))
    one = builder.constant("one", np.float32(1.0))
    mask = builder.add("Cast", "attention_mask", to=TensorProto.FLOAT)
    second = builder.add("Cast", "token_type_ids", to=TensorProto.FLOAT)
    rows = []
    for side in (second, builder.add("Sub", one, second)):
        tokens = builder.add("Mul", mask, side)
        count = builder.add("ReduceSum", tokens, axis, keepdims=1)
        share = builder.add("Div", tokens, builder.add("Max", count, one))
        rows.append(builder.add("Unsqueeze", share, axis))
    return builder.add("Concat", *rows, axis=1)


def encode(tokenizer: Tokenizer, pairs: list[tuple[str, str]]) -> list[tuple[list[int], int] | None]:
    """Token ids, and how many of them are the prompt's; None for a response without visible text.

    Cuts the end of a response as the server does when `response_end` is asked for.
    """
    encoded: list[tuple[list[int], int] | None] = []
    for encoding in tokenizer.encode_batch(pairs):
        ids, prompt = list(encoding.ids), encoding.type_ids.index(1)
        if len(ids) - prompt < 2:
            encoded.append(None)
            continue
        if len(ids) > MAX_TOKENS:
            ids = ids[: MAX_TOKENS - 1] + ids[-1:]
        encoded.append((ids, prompt))
    return encoded


def run(graph: onnx.ModelProto, encoded: list[tuple[list[int], int]], threads: int = 0) -> np.ndarray:
    """The graph's one output for every pair, `[pairs, width]`; `threads` 0 means all cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    # Pairs of like length together, so that little is computed for padding.
    order = sorted(range(len(encoded)), key=lambda index: len(encoded[index][0]))
    values = np.empty((len(encoded), session.get_outputs()[0].shape[1]), np.float32)
    started = told = time.monotonic()
    for start in range(0, len(order), BATCH):
        group = order[start : start + BATCH]
        shape = (len(group), len(encoded[group[-1]][0]))
        ids, mask, types = (np.zeros(shape, np.int64) for _ in range(3))
        for row, index in enumerate(group):
            tokens, prompt = encoded[index]
            ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
            types[row, prompt : len(tokens)] = 1
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        values[group] = session.run(None, feeds)[0]
        if time.monotonic() - told > PROGRESS_SECONDS:
            told = time.monotonic()
            done = start + len(group)
            print(f"  {done} of {len(order)} in {told - started:.0f} s", flush=True)
    return values
