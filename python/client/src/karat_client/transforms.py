"""What happens to a reward after aggregation, as a request says it.

Each function returns one entry of the `transforms` of a request, which are applied in order.
"""

from __future__ import annotations

from karat_client.rules import Rule, rule


def clip(*, minimum: float | None = None, maximum: float | None = None) -> Rule:
    """Keeps a reward within a range: `r' = min(max(r, minimum), maximum)`."""
    bounds = {"min": minimum, "max": maximum}
    return rule("clip", **{name: bound for name, bound in bounds.items() if bound is not None})


def delta() -> Rule:
    """Differences of neighbouring step rewards, for models that reward the process (Gao et al. 2024)."""
    return rule("delta")


def log_sigmoid(reference: float) -> Rule:
    """The log-probability of beating a reference reward: `u = log sigmoid(r - reference)` (Wang et al. 2024)."""
    return rule("log_sigmoid", reference=reference)


def affine(*, scale: float = 1.0, offset: float = 0.0) -> Rule:
    """Scales and shifts a reward: `r' = scale * r + offset`."""
    return rule("affine", scale=scale, offset=offset)
