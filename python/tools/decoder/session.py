"""Runs a graph of contract `rm-prefix/1` in ONNX Runtime, as a host would."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime

# exp() of it underflows to exactly zero beside any real logit.
MASKED = np.float32(-1e9)


class PrefixSession:
    """One graph, loaded."""

    def __init__(self, graph: Path | onnx.ModelProto, threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        source = str(graph) if isinstance(graph, Path) else graph.SerializeToString()
        self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        self._past = {
            value.name: (value.shape[1], value.shape[3])
            for value in self._session.get_inputs()
            if value.name.startswith("past_key_values.")
        }

    def run(
        self,
        output: str,
        ids: list[int],
        read: list[int],
        past: dict[str, np.ndarray] | None = None,
        positions: list[int] | None = None,
        bias: np.ndarray | None = None,
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """`output` at the indices `read`, and the keys and values of past and new tokens.

        By default the tokens follow the past in order, each seeing all before it.
        """
        cache = past or {name: np.zeros((1, heads, 0, size), np.float32) for name, (heads, size) in self._past.items()}
        before = next(iter(cache.values())).shape[2]
        if bias is None:
            bias = causal_bias(len(ids), before)
        if positions is None:
            positions = list(range(before, before + len(ids)))
        feeds = {
            "input_ids": np.array([ids], np.int64),
            "position_ids": np.array([positions], np.int64),
            "attn_bias": bias,
            "score_positions": np.array(read, np.int64),
            **cache,
        }
        presents = [name.replace("past_key_values", "present") for name in self._past]
        values, *new = self._session.run([output, *presents], feeds)
        grown = {
            name: np.concatenate([cache[name], value], axis=2) for name, value in zip(self._past, new, strict=True)
        }
        return values, grown


def causal_bias(new: int, past: int) -> np.ndarray:
    """The mask of new tokens that follow a past: `[1, 1, new, past + new]`."""
    future = np.triu(np.full((new, new), MASKED, np.float32), k=1)
    return np.concatenate([np.zeros((new, past), np.float32), future], axis=1)[None, None]
