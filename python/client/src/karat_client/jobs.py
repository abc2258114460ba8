"""Rows that a server scores when it has nothing else to do.

job = client.submit_job(prompts=prompts, responses=responses)
offset = 0
while (page := client.job_results(job.id, offset=offset)).results:
    ...
    offset = page.next_offset
"""

from __future__ import annotations

from dataclasses import dataclass

from karat_client.errors import Problem
from karat_client.results import ScoreResult


@dataclass(frozen=True)
class Job:
    """A job and how far it is."""

    id: str
    state: str
    """`running`, `done` or `cancelled`; `receiving` while its rows arrive."""
    rows: int
    done: int
    """How many rows have results."""
    failed: int
    """How many of those couldn't be scored."""
    rate: float | None
    """Rows a second, while it is being worked on."""
    seconds_left: float | None
    """How long it will take at that rate."""
    lasts: bool
    """Whether it is still there after a restart of the server."""


@dataclass(frozen=True)
class JobResult:
    """What came of one row."""

    index: int
    """The row's place in the job, counted from 0."""
    result: ScoreResult | None
    """The reward; None of a row that can't be scored."""
    model_version: str | None
    """Exactly which model scored it: a job may see more than one."""
    problem: Problem | None
    """Why the row can't be scored."""


@dataclass(frozen=True)
class JobResults:
    """Results of a job in the order of its rows; none at all where it has ended and these were asked for already."""

    results: tuple[JobResult, ...]
    next_offset: int
    """The place of the first row that isn't here."""
