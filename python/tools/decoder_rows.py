"""A decoder's rows as karat cuts them, of a graph that follows the contract `rm-prefix/1`.

What a text is given must not depend on how it came into rows: alone, or as one
of several that share a beginning. So both ways are here, for programs that hold
a graph to that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

# What is added where a token may not look.
UNSEEN = np.float32(-1e9)
# As many tokens as karat's rows have at most, unless measuring says otherwise.
ROW = 256

Past = list[np.ndarray]


class Session(Protocol):
    """What of ONNX Runtime's sessions is used here."""

    def run(self, outputs: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs of those names."""
        ...

    def get_inputs(self) -> list[Any]:
        """The graph's inputs."""
        ...

    def get_outputs(self) -> list[Any]:
        """The graph's outputs."""
        ...

    def get_modelmeta(self) -> Any:
        """What the graph says of itself."""
        ...


class DecoderRows:
    """One session, and what is read at the last token of texts: the first output that isn't keys or values."""

    def __init__(self, session: Session) -> None:
        told = session.get_modelmeta().custom_metadata_map
        if told.get("karat.contract") != "rm-prefix/1":
            raise SystemExit("the graph doesn't follow the contract rm-prefix/1")
        self._session = session
        outputs = [tensor.name for tensor in session.get_outputs()]
        self._inputs = [tensor.name for tensor in session.get_inputs()]
        self._presents = [name for name in outputs if name.startswith("present.")]
        self._read = next(name for name in outputs if not name.startswith("present."))
        shape = (1, int(told["karat.kv_heads"]), 0, int(told["karat.head_dim"]))
        self._nothing = [np.zeros(shape, np.float32) for _ in self._presents]

    def alone(self, text: Sequence[int], row: int = ROW) -> np.ndarray:
        """What is read of a text in rows of its own."""
        start = (len(text) - 1) // row * row
        past = self._after(text[:start], row)
        return self._run([text[start:]], past)[0][0]

    def together(self, beginning: Sequence[int], endings: Sequence[Sequence[int]], row: int = ROW) -> np.ndarray:
        """What is read of each text that begins in the same way; as many as fit share a row."""
        past = self._after(beginning, row)
        read: list[np.ndarray] = []
        spans: list[Sequence[int]] = []
        for ending in endings:
            if spans and sum(map(len, spans)) + len(ending) > row:
                read.extend(self._run(spans, past)[0])
                spans = []
            spans.append(ending)
        return np.array([*read, *self._run(spans, past)[0]])

    def _after(self, text: Sequence[int], row: int) -> Past:
        """Keys and values of a beginning."""
        past = self._nothing
        for start in range(0, len(text), row):
            new = self._run([text[start : start + row]], past, keeps=True)[1]
            past = [np.concatenate(parts, axis=2) for parts in zip(past, new, strict=True)]
        return past

    def _run(self, spans: Sequence[Sequence[int]], past: Past, *, keeps: bool = False) -> tuple[np.ndarray, Past]:
        """One row of spans that see the past and themselves; what is read at their ends, and new keys and values."""
        before, lengths = past[0].shape[2], [len(span) for span in spans]
        new = sum(lengths)
        bias = np.full((1, 1, new, before + new), UNSEEN)
        bias[..., :before] = 0.0
        start = 0
        for length in lengths:
            end = start + length
            bias[0, 0, start:end, before + start : before + end] = np.triu(np.full((length, length), UNSEEN), 1)
            start = end
        positions = np.concatenate([np.arange(before, before + length) for length in lengths])
        feed = {
            "input_ids": np.concatenate([np.asarray(span, np.int64) for span in spans])[None],
            "position_ids": positions[None],
            "attn_bias": bias,
            "score_positions": np.cumsum(lengths).astype(np.int64) - 1,
            "key_position_ids": np.concatenate([np.arange(before), positions])[None],
        }
        keys = zip((name.replace("present", "past_key_values") for name in self._presents), past, strict=True)
        feed.update(keys)
        wanted = [self._read, *(self._presents if keeps else [])]
        read, *given = self._session.run(wanted, {name: feed[name] for name in self._inputs})
        return read, given
