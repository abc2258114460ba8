"""What the GPU check finds, row by row, and when scores are the same."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

COLUMNS = ("part", "what", "found", "wanted", "verdict")


@dataclass(frozen=True)
class Row:
    """One thing that was looked at."""

    part: str
    what: str
    found: str
    wanted: str = ""
    holds: bool | None = None
    # Whether the check fails where it doesn't hold: scores must be right, while speeds are those of one kind of GPU.
    must: bool = False

    @property
    def verdict(self) -> str:
        """A word for it."""
        return {None: "", True: "ok", False: "MISSED"}[self.holds]


@dataclass
class Table:
    """What a part found, and the numbers behind it. Everything is in its file as soon as it is known, so that what was
    found stays when the part is cut."""

    part: str
    file: Path
    rows: list[Row] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)

    def add(self, what: str, found: str, wanted: str = "", *, holds: bool | None = None, must: bool = False) -> None:
        """A row; without `holds` it is told and not judged."""
        row = Row(self.part, what, found, wanted, holds, must)
        self.rows.append(row)
        print(f"  {what}: {found}  {wanted}  {row.verdict}", flush=True)
        self._write()

    def must(self, what: str, found: str, wanted: str, *, holds: bool) -> None:
        """As `add`; the check fails when it doesn't hold."""
        self.add(what, found, wanted, holds=holds, must=True)

    def at_least(self, what: str, found: float, wanted: float, *, digits: int = 2) -> None:
        """A number that must be reached."""
        self.add(what, f"{found:.{digits}f}", f">= {wanted:g}", holds=found >= wanted)

    def at_most(self, what: str, found: float, wanted: float, unit: str) -> None:
        """A number that must not be passed."""
        self.add(what, f"{found:.2f} {unit}", f"<= {wanted:g} {unit}", holds=found <= wanted)

    def keep(self, name: str, value: Any) -> None:
        """A number for whoever reads the file, or another part."""
        self.numbers[name] = value
        self._write()

    def _write(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        content = {"rows": [asdict(row) for row in self.rows], "numbers": self.numbers}
        partial = self.file.with_suffix(".partial")
        partial.write_text(json.dumps(content, indent=1) + "\n")
        partial.replace(self.file)


def read(file: Path) -> tuple[list[Row], dict[str, Any]]:
    """What a part wrote; nothing where it wrote nothing."""
    try:
        content = json.loads(file.read_text())
    except FileNotFoundError:
        return [], {}
    return [Row(**row) for row in content["rows"]], content["numbers"]


def as_text(rows: Sequence[Row]) -> str:
    """A table for a terminal."""
    lines = [COLUMNS, *((row.part, row.what, row.found, row.wanted, row.verdict) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


@dataclass(frozen=True)
class Comparison:
    """Scores of the same samples, in order, from two ways to compute them."""

    largest: float
    mean: float
    # Pairs of answers to one prompt that the reference tells apart by more than twice the tolerance.
    clear: int
    swapped: int


def compare(expected: Sequence[float], found: Sequence[float], groups: Sequence[int], tolerance: float) -> Comparison:
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
