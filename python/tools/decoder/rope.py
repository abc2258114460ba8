"""Rotary positions: the angle that each pair of dimensions turns by at each position."""

from __future__ import annotations

import numpy as np

from tools.decoder.config import DecoderConfig


def inverse_frequencies(config: DecoderConfig) -> np.ndarray:
    """Radians a position for each pair of dimensions, float32 `[head_dim / 2]`.

    RoFormer (Su et al., 2021): theta^(-2i/d). With `llama3` scaling, rotations
    that turn less than `low_frequency_factor` times within the original context
    are slowed by `factor`, those that turn more than `high_frequency_factor`
    times stay, and those in between are mixed in proportion.
    """
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    plain = (1.0 / np.power(np.float32(config.rope_theta), exponents)).astype(np.float32)
    scaling = config.rope_scaling
    if scaling is None:
        return plain
    turns = scaling.original_context * plain / np.float32(2 * np.pi)
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return ((1.0 - kept) * plain / scaling.factor + kept * plain).astype(np.float32)
