"""The same decoder in plain numpy: what the graph must equal.

It shares nothing with the graph but the configuration's fields and the weights.
It has no cache, no packing and no mask: it reads one whole text, in float64, and
each position looks at itself and everything before it.
"""

from __future__ import annotations

import math

import numpy as np

from tools.decoder.config import DecoderConfig, RopeScaling
from tools.decoder.weights import Weights


class Reference:
    """A decoder that computes one text at a time, in float64."""

    def __init__(self, config: DecoderConfig, weights: Weights) -> None:
        self._config = config
        self._weights = weights

    def hidden(self, ids: list[int]) -> np.ndarray:
        """The state after the final norm at every token, `[tokens, hidden]`."""
        c = self._config
        state = self._read("model.embed_tokens.weight")[np.array(ids)]
        turns = np.stack([self._turn(position) for position in range(len(ids))])
        for layer in range(c.layers):
            name = f"model.layers.{layer}"
            state = state + self._attention(f"{name}.self_attn", self._norm(f"{name}.input_layernorm", state), turns)
            normal = self._norm(f"{name}.post_attention_layernorm", state)
            gate = self._linear(f"{name}.mlp.gate_proj", normal)
            up = self._linear(f"{name}.mlp.up_proj", normal)
            state = state + self._linear(f"{name}.mlp.down_proj", gate / (1 + np.exp(-gate)) * up)
        return self._norm("model.norm", state)

    def read(self, output: str, hidden: np.ndarray) -> np.ndarray:
        """The output `scores`, `logits` or `hidden` of final states."""
        if output == "hidden":
            return hidden
        if output == "logits":
            return self._linear("model.embed_tokens" if self._config.tied_embeddings else "lm_head", hidden)
        head = "score" if "score.weight" in self._weights.names() else "classifier"
        return self._linear(head, hidden)

    def scores(self, ids: list[int]) -> np.ndarray:
        """What the score head gives at every token, `[tokens, labels]`."""
        return self.read("scores", self.hidden(ids))

    def logits(self, ids: list[int]) -> np.ndarray:
        """What the language-model head gives at every token, `[tokens, vocabulary]`."""
        return self.read("logits", self.hidden(ids))

    def _turn(self, position: int) -> np.ndarray:
        """The rotation of every pair of dimensions at `position`, as complex numbers."""
        c, turns = self._config, []
        for pair in range(c.head_dim // 2):
            frequency = c.rope_theta ** (-2 * pair / c.head_dim)
            if c.rope_scaling is not None:
                frequency = _stretched(frequency, c.rope_scaling)
            turns.append(complex(math.cos(position * frequency), math.sin(position * frequency)))
        return np.array(turns)

    def _attention(self, name: str, state: np.ndarray, turns: np.ndarray) -> np.ndarray:
        c = self._config
        queries, keys, values = (
            self._linear(f"{name}.{part}_proj", state).reshape(len(state), -1, c.head_dim) for part in "qkv"
        )
        if c.query_key_norm:
            queries = self._norm(f"{name}.q_norm", queries)
            keys = self._norm(f"{name}.k_norm", keys)
        heads = []
        future = np.triu(np.ones((len(state), len(state)), bool), k=1)
        for head in range(c.heads):
            shared = head * c.kv_heads // c.heads
            query, key = _turned(queries[:, head], turns), _turned(keys[:, shared], turns)
            likeness = query @ key.T / math.sqrt(c.head_dim)
            likeness[future] = -np.inf
            share = np.exp(likeness - likeness.max(axis=1, keepdims=True))
            share /= share.sum(axis=1, keepdims=True)
            heads.append(share @ values[:, shared])
        return self._linear(f"{name}.o_proj", np.concatenate(heads, axis=1))

    def _linear(self, name: str, value: np.ndarray) -> np.ndarray:
        product = value @ self._read(f"{name}.weight").T
        if f"{name}.bias" in self._weights.names():
            product = product + self._read(f"{name}.bias")
        return product

    def _norm(self, name: str, value: np.ndarray) -> np.ndarray:
        square = (value**2).mean(axis=-1, keepdims=True)
        return value / np.sqrt(square + self._config.norm_epsilon) * self._read(f"{name}.weight")

    def _read(self, name: str) -> np.ndarray:
        return self._weights.read(name).astype(np.float64)


def _turned(head: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """One head's vectors `[tokens, head_dim]`, each pair of dimensions turned."""
    half = head.shape[1] // 2
    pairs = (head[:, :half] + 1j * head[:, half:]) * turns
    return np.concatenate([pairs.real, pairs.imag], axis=1)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities over the last axis."""
    largest = logits.max(axis=-1, keepdims=True)
    return logits - largest - np.log(np.exp(logits - largest).sum(axis=-1, keepdims=True))


def _stretched(frequency: float, rule: RopeScaling) -> float:
    """The frequency under Llama 3's rule, by its wavelength as the rule is published."""
    wavelength = 2 * math.pi / frequency
    if wavelength < rule.original_context / rule.high_frequency_factor:
        return frequency
    if wavelength > rule.original_context / rule.low_frequency_factor:
        return frequency / rule.factor
    smooth = (rule.original_context / wavelength - rule.low_frequency_factor) / (
        rule.high_frequency_factor - rule.low_frequency_factor
    )
    return (1 - smooth) * frequency / rule.factor + smooth * frequency
