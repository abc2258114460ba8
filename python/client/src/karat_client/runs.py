"""Training runs as the server sees them.

client.score(prompts=prompts, responses=responses, run="grpo-7b", step=120)
wandb.log(client.run("grpo-7b").metrics(), step=120)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """What came of one sample: `request` is the id of the request that scored it, `index` its place there."""

    request: str
    index: int
    value: float | bool


@dataclass(frozen=True)
class OutcomesTold:
    """What became of outcomes; `unknown` are the places of those whose rewards the server doesn't remember."""

    accepted: int
    repeated: int
    unknown: tuple[int, ...]


@dataclass(frozen=True)
class Signal:
    """A signal of over-optimisation; `value` and its interval are None where there is too little to tell."""

    name: str
    firing: bool
    since_step: int | None
    value: float | None
    low: float | None
    high: float | None
    limit: float | None


@dataclass(frozen=True)
class RunModel:
    """One model's rewards in a run. `latest` is its last step's statistics, as the server names them."""

    model: str
    samples: int
    latest: Mapping[str, Any] = field(repr=False)
    signals: tuple[Signal, ...] = ()

    def firing(self) -> tuple[str, ...]:
        """The signals that fire."""
        return tuple(signal.name for signal in self.signals if signal.firing)


LOGGED = (
    "mean",
    "deviation",
    "disagreement",
    "worst_case_gap",
    "length",
    "length_correlation",
    "at_bound",
    "duplicates",
    "refusals",
    "cuts",
)
"""The statistics of a step that `Run.metrics` gives."""


@dataclass(frozen=True)
class Run:
    """What the server knows of a training run. `report` is all that it said."""

    name: str
    samples: int
    models: tuple[RunModel, ...]
    report: Mapping[str, Any] = field(repr=False)

    def firing(self) -> tuple[str, ...]:
        """The signals that fire for any model, each once."""
        return tuple(dict.fromkeys(name for model in self.models for name in model.firing()))

    def metrics(self, prefix: str = "karat/") -> dict[str, float]:
        """The latest step and every signal as one flat dictionary, for W&B, TensorBoard and other loggers.

        What is undefined is left out: a logger shows a gap there, never a 0.
        """
        return {prefix + name: value for name, value in self._metrics()}

    def _metrics(self) -> Iterator[tuple[str, float]]:
        for model in self.models:
            for name in LOGGED:
                if (value := model.latest.get(name)) is not None:
                    yield f"{model.model}/{name}", float(value)
            for signal in model.signals:
                if signal.value is not None:
                    yield f"{model.model}/{signal.name}", signal.value
                    yield f"{model.model}/{signal.name}_firing", float(signal.firing)
