"""What the GPU check finds, row by row, and when scores are the same."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field


@dataclass
class Table:
    """What the check found, row by row."""

    rows: list[tuple[str, str, str, str]] = field(default_factory=list)
    failed: bool = False

    def add(self, what: str, found: str, wanted: str = "", *, holds: bool | None = None) -> None:
        word = {None: "", True: "ok", False: "MISSED"}[holds]
        self.rows.append((what, found, wanted, word))
        print(f"  {what}: {found} {wanted} {word}", flush=True)

    def must(self, what: str, found: str, wanted: str, *, holds: bool) -> None:
        """As `add`; the check fails when it doesn't hold."""
        self.add(what, found, wanted, holds=holds)
        self.failed = self.failed or not holds

    def __str__(self) -> str:
        widths = [max(len(row[column]) for row in self.rows) for column in range(4)]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in self.rows]
        return "\n".join(line.rstrip() for line in lines)


@dataclass(frozen=True)
class Comparison:
    """Scores of the same samples, in order, from two ways to compute them."""

    largest: float
    mean: float
    # Pairs of answers to one prompt that the reference tells apart by more than twice the tolerance.
    clear: int
    swapped: int


def compare(expected: list[float], found: list[float], groups: list[int], tolerance: float) -> Comparison:
    """Raises ValueError when the numbers of scores differ, or one is no number."""
    differences = [abs(one - other) for one, other in zip(expected, found, strict=True)]
    if not all(math.isfinite(difference) for difference in differences):
        raise ValueError("a score is not a finite number")
    clear = swapped = 0
    members: dict[int, list[int]] = {}
    for index, group in enumerate(groups):
        for other in members.setdefault(group, []):
            before = expected[index] - expected[other]
            if abs(before) > 2 * tolerance:
                clear += 1
                swapped += before * (found[index] - found[other]) <= 0
        members[group].append(index)
    return Comparison(max(differences), statistics.fmean(differences), clear, swapped)
