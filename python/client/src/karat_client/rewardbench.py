"""Evaluates a model on preference pairs, as RewardBench does: how often is the chosen response scored higher?

    from karat_client import Client
    from karat_client.rewardbench import evaluate

    with Client("http://127.0.0.1:8080", model="harmless") as client:
        print(evaluate(client, rows).table())

`rows` are dicts with `prompt`, `chosen`, `rejected` and, if there are several, `subset`, such as those of the data set
`allenai/reward-bench`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING, Any

from karat_client._shared import rewards_or_none
from karat_client.async_client import AsyncClient
from karat_client.client import Client
from karat_client.results import PartialScores, ScoreResult

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from karat_client.options import ScoreOptions


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a proportion (Wilson 1927), which stays within 0..1 and is sound for few trials.

    `(p + z^2/2n ± z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)`. Raises ValueError unless
    0 <= successes <= trials, trials >= 1 and 0 < confidence < 1.
    """
    if not (0 <= successes <= trials and trials >= 1 and 0 < confidence < 1):
        raise ValueError(f"there is no interval for {successes} of {trials} at a confidence of {confidence}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / trials
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    # The bounds are exactly 0 and 1 there; rounding would miss them by an ulp.
    low = 0.0 if successes == 0 else (centre - spread) / scale
    high = 1.0 if successes == trials else (centre + spread) / scale
    return low, high


@dataclass(frozen=True)
class SubsetAccuracy:
    """How often the chosen response of a subset's pairs is scored higher."""

    name: str
    pairs: int
    """The pairs that were scored."""
    correct: int
    """Those whose chosen response has the higher reward."""
    ties: int
    """Those whose rewards are equal; they count as wrong, as RewardBench does."""
    unscored: int
    """Pairs of which the server refused a side, such as for its length; they count neither way."""

    @property
    def accuracy(self) -> float | None:
        """The share of scored pairs that are correct; None when none was scored."""
        return self.correct / self.pairs if self.pairs else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The accuracy's 95 % Wilson interval; None when no pair was scored."""
        return wilson_interval(self.correct, self.pairs) if self.pairs else None


@dataclass(frozen=True)
class Report:
    """The accuracy of a model."""

    model: str
    model_version: str | None
    """Exactly which model scored; None when nothing was scored."""
    subsets: Mapping[str, SubsetAccuracy]
    """By name, in the order in which they first occur."""
    overall: SubsetAccuracy
    """All pairs together."""

    @property
    def mean_of_subsets(self) -> float | None:
        """The unweighted mean of the subsets' accuracies; None when no pair was scored."""
        known = [subset.accuracy for subset in self.subsets.values() if subset.accuracy is not None]
        return fmean(known) if known else None

    def table(self) -> str:
        """The report as lines of text."""
        rows = [*self.subsets.values(), self.overall]
        width = max(len("subset"), *(len(row.name) for row in rows))
        lines = [f"{'subset':<{width}}  accuracy   95 % interval  pairs  ties  unscored"]
        for row in rows:
            shown = "       -               -"
            if row.accuracy is not None and row.interval is not None:
                low, high = row.interval
                shown = f"{row.accuracy:>8.3f}   {low:.3f} - {high:.3f}"
            lines.append(f"{row.name:<{width}}  {shown}  {row.pairs:>5}  {row.ties:>4}  {row.unscored:>8}")
        return "\n".join([*lines, f"model {self.model}, version {self.model_version}"])


@dataclass(frozen=True)
class Columns:
    """The names of the columns."""

    prompt: str = "prompt"
    chosen: str = "chosen"
    rejected: str = "rejected"
    subset: str = "subset"
    """Rows without it belong to one subset, `all`."""


def evaluate(
    client: Client,
    rows: Iterable[Mapping[str, Any]],
    columns: Columns | None = None,
    **options: Unpack[ScoreOptions],
) -> Report:
    """Scores both sides of every row. Raises as `Client.try_score` does, and ValueError for a row without a column."""
    pairs = _Pairs(rows, columns or Columns())
    return pairs.report(client.try_score(prompts=pairs.prompts, responses=pairs.responses, **options))


async def evaluate_async(
    client: AsyncClient,
    rows: Iterable[Mapping[str, Any]],
    columns: Columns | None = None,
    **options: Unpack[ScoreOptions],
) -> Report:
    """As `evaluate`."""
    pairs = _Pairs(rows, columns or Columns())
    return pairs.report(await client.try_score(prompts=pairs.prompts, responses=pairs.responses, **options))


class _Pairs:
    """Rows as one list of responses, chosen and rejected in turn."""

    def __init__(self, rows: Iterable[Mapping[str, Any]], columns: Columns) -> None:
        self.prompts: list[Any] = []
        self.responses: list[Any] = []
        self._subsets: list[str] = []
        for number, row in enumerate(rows):
            missing = [name for name in (columns.prompt, columns.chosen, columns.rejected) if name not in row]
            if missing:
                raise ValueError(f"row {number} has no {', '.join(missing)} but {', '.join(row)}")
            self.prompts += [row[columns.prompt]] * 2
            self.responses += [row[columns.chosen], row[columns.rejected]]
            self._subsets.append(str(row.get(columns.subset, "all")))

    def report(self, scores: PartialScores) -> Report:
        rewards_or_none(scores)
        outcomes: dict[str, list[float | None]] = {}
        for pair, subset in enumerate(self._subsets):
            chosen, rejected = scores.results[2 * pair : 2 * pair + 2]
            scored = isinstance(chosen, ScoreResult) and isinstance(rejected, ScoreResult)
            margin = chosen.reward - rejected.reward if scored else None  # type: ignore[union-attr]
            outcomes.setdefault(subset, []).append(margin)
        return Report(
            model=scores.model,
            model_version=scores.model_version,
            subsets={name: _accuracy(name, margins) for name, margins in outcomes.items()},
            overall=_accuracy("all pairs", [margin for margins in outcomes.values() for margin in margins]),
        )


def _accuracy(name: str, margins: list[float | None]) -> SubsetAccuracy:
    scored = [margin for margin in margins if margin is not None]
    return SubsetAccuracy(
        name=name,
        pairs=len(scored),
        correct=sum(margin > 0 for margin in scored),
        ties=sum(margin == 0 for margin in scored),
        unscored=len(margins) - len(scored),
    )
