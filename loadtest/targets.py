"""What karat must reach, and whether a run reached it."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import Any

from loadtest.scenarios import BATCH, PARALLEL
from loadtest.workload import SHORT


@dataclass(frozen=True)
class Target:
    """One figure of one model beside its bound."""

    model: str
    what: str
    # None when the run could not measure it, which reaches nothing.
    value: float | None
    unit: str
    bound: float
    at_least: bool

    @property
    def reached(self) -> bool:
        """Whether what was measured is good enough."""
        if self.value is None:
            return False
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def as_json(self) -> dict[str, Any]:
        """What the results file says of it."""
        return {**asdict(self), "reached": self.reached}

    def row(self) -> list[str]:
        """Its line in a table."""
        bound = f"{'at least' if self.at_least else 'at most'} {_number(self.bound, self.unit)}"
        reached = "reached" if self.reached else "NOT reached"
        value = "not measured" if self.value is None else _number(self.value, self.unit)
        return [self.model, self.what, value, bound, reached]


HEADINGS = ["model", "what", "measured", "must be", ""]


def of_model(model: str, results: dict[str, Any]) -> list[Target]:
    """Every target of one model."""
    throughput, hang_up = results["throughput"], results["hang_up"]
    optimum = offline_optimum(throughput)

    def at_least(what: str, value: float, bound: float, unit: str = "") -> Target:
        return Target(model, what, value, unit, bound, at_least=True)

    def at_most(what: str, value: float | None, bound: float, unit: str = "") -> Target:
        return Target(model, what, value, unit, bound, at_least=False)

    def of_optimum(name: str) -> float:
        return ratio(throughput, name, optimum)

    overload = results["open"]["4.0"]
    peak = throughput[f"karat-{PARALLEL}"]["tokens_per_second"]
    refusals = overload["refusal_ms"]
    return [
        at_least("tokens/s at 64 clients / offline optimum", of_optimum("karat-64"), 0.95),
        at_least("tokens/s at 256 clients / offline optimum", of_optimum("karat-256"), 0.95),
        at_least("tokens/s at 1 client / offline optimum", of_optimum("karat-1"), 0.85),
        at_least(f"tokens/s in batches of {BATCH} / offline optimum", of_optimum("karat-batches"), 0.95),
        at_least(
            f"tokens/s at {PARALLEL} clients / the FastAPI server's",
            ratio(throughput, f"karat-{PARALLEL}", "fastapi-32"),
            3,
        ),
        at_most(
            f"added at 1 client, {SHORT} tokens, over the bare run",
            results["overhead"]["added_ms"],
            0.4,
            "ms",
        ),
        at_most(
            f"added at 1 client, {SHORT} tokens, over the bare run with rests",
            results["overhead"]["added_to_resting_ms"],
            0.4,
            "ms",
        ),
        at_least("goodput at 4x overload / peak", overload["good_tokens_per_second"] / peak, 0.9),
        at_most("slowest refusal at 4x overload", refusals and refusals["max"], 50, "ms"),
        at_most(
            "p99 of short ones beside a flood / one pass of the longest",
            results["flood"]["passes"],
            3,
        ),
        at_most(
            f"samples computed for {hang_up['clients']:,} clients that left",
            hang_up["samples_computed_for_nobody"],
            0,
        ),
        at_most("samples queued after they left", hang_up["queued_afterwards"], 0),
        at_most("resident memory after / before they came", hang_up["resident_ratio"], 1.05),
        at_least(
            f"known scores a second in batches of {BATCH}",
            results["cached"]["samples_per_second"],
            20_000,
            "scores/s",
        ),
    ]


def offline_optimum(throughput: dict[str, Any]) -> str:
    """Which of the two raw runs was faster."""
    return max(("offline-rust", "offline-python"), key=lambda name: throughput[name]["tokens_per_second"])


def ratio(throughput: dict[str, Any], name: str, other: str, time: str = "seconds") -> float:
    """The median over the rounds of one contender's tokens a second over another's.

    `time` may be `cpu_seconds`: a busy machine disturbs that ratio less, but it
    doesn't show a core that stands idle.
    """
    pairs = zip(throughput[name]["rounds"], throughput[other]["rounds"], strict=True)
    return statistics.median((one["tokens"] / one[time]) / (two["tokens"] / two[time]) for one, two in pairs)


def _number(value: float, unit: str) -> str:
    if unit == "scores/s":
        return f"{value:,.0f}"
    text = f"{value:g}" if float(value).is_integer() else f"{value:.2f}"
    return f"{text} {unit}".strip()
