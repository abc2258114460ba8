"""Pooled trunk states of preference pairs: one forward pass a conversation."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from tokenizers import Tokenizer

from tools.dialogues import Pair, encode_pair
from tools.preference_data import Preference

BATCH = 8


def fit_to_length(tokenizer: Tokenizer, pair: Pair, max_tokens: int) -> tuple[list[int], list[int]]:
    """Token ids and token types, with the prompt cut from its start where needed.

    The first token and the whole response stay. Raises ValueError when the
    response alone is too long.
    """
    encoding = encode_pair(tokenizer, pair)
    ids, types = list(encoding.ids), list(encoding.type_ids)
    surplus = max(0, len(ids) - max_tokens)
    prompt_tokens = types.index(1) - 2
    if surplus > prompt_tokens:
        raise ValueError(f"a response of {types.count(1)} tokens does not fit {max_tokens}")
    return ids[:1] + ids[1 + surplus :], types[:1] + types[1 + surplus :]


def that_fit(tokenizer: Tokenizer, preferences: list[Preference], max_tokens: int) -> list[Preference]:
    """The pairs of which both responses fit the model's length."""

    def fits(pair: Pair) -> bool:
        try:
            fit_to_length(tokenizer, pair, max_tokens)
        except ValueError:
            return False
        return True

    return [p for p in preferences if fits(p.chosen) and fits(p.rejected)]


def compute(graph: onnx.ModelProto, tokenizer: Tokenizer, pairs: list[Pair], max_tokens: int) -> np.ndarray:
    """The graph's one output for every pair, `[pairs, width]`."""
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    encoded = [fit_to_length(tokenizer, pair, max_tokens) for pair in pairs]
    # Pairs of like length together, so that little is computed for padding.
    order = sorted(range(len(encoded)), key=lambda index: len(encoded[index][0]))
    rows: dict[int, np.ndarray] = {}
    for start in range(0, len(order), BATCH):
        group = order[start : start + BATCH]
        shape = (len(group), len(encoded[group[-1]][0]))
        ids, mask, types = (np.zeros(shape, np.int64) for _ in range(3))
        for row, index in enumerate(group):
            length = len(encoded[index][0])
            ids[row, :length], types[row, :length] = encoded[index]
            mask[row, :length] = 1
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        (values,) = session.run(None, feeds)
        for row, index in enumerate(group):
            rows[index] = values[row]
    return np.stack([rows[index] for index in range(len(pairs))])
