"""Runs the load generator, or raw sessions, and reads what they report."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.machine import metered
from loadtest.servers import Server
from loadtest.workload import Workload

Report = dict[str, Any]

GRACE_SECONDS = 30


@dataclass(frozen=True)
class Plan:
    """A static plan: sessions of so many threads, groups of so many positions (1: each alone)."""

    sessions: int
    threads: int
    budget: int

    def __str__(self) -> str:
        groups = "singles" if self.budget == 1 else f"groups of {self.budget} positions"
        return f"{self.sessions} x {self.threads} threads, {groups}"

    @property
    def flags(self) -> list[str]:
        """What the generator is told of it."""
        return [
            *("--sessions", str(self.sessions)),
            *("--threads", str(self.threads)),
            *("--budget", str(self.budget)),
        ]


@dataclass(frozen=True)
class Generator:
    """The compiled generator."""

    executable: Path
    at_most: float

    def closed(self, server: Server, workload: Workload, clients: int, *flags: str, **options: Any) -> Report:
        """Clients that wait for their replies: the workload once, or for `seconds`."""
        return self._metered(server, ["closed", "--clients", str(clients), *_flags(options)], workload, *flags)

    def open(self, server: Server, workload: Workload, *flags: str, **options: Any) -> Report:
        """Requests that arrive at a `rate` for `seconds`."""
        return self._metered(server, ["open", *_flags(options)], workload, *flags)

    def hang_up(self, server: Server, workload: Workload, **options: Any) -> Report:
        """Clients that leave."""
        return self._metered(server, ["hang-up", *_flags(options)], workload)

    def start_closed(self, server: Server, workload: Workload, clients: int, **options: Any) -> Running:
        """As `closed`, beside other things; wait for it with `Running.report`."""
        command = [*self._command(server, workload), *_flags(options)]
        command[1:1] = ["closed", "--clients", str(clients)]
        return Running(command, self.at_most + GRACE_SECONDS)

    def offline(self, graph: Path, workload: Workload, plan: Plan, samples: int) -> Report:
        """Raw sessions in Rust."""
        command = [str(self.executable), "offline", "--graph", str(graph)]
        return self._offline(command, workload, plan, samples)

    def offline_python(self, graph: Path, workload: Workload, plan: Plan, samples: int) -> Report:
        """Raw sessions in Python."""
        command = [sys.executable, "-m", "loadtest.offline", "--graph", str(graph)]
        return self._offline(command, workload, plan, samples)

    def bare(self, graph: Path, workload: Workload, threads: int, passes: int, rest_us: int = 0) -> Report:
        """One raw session, one sample after another, at rest between two for so long."""
        command = [str(self.executable), "bare", "--graph", str(graph), "--threads", str(threads)]
        command += ["--workload", str(workload.path), "--passes", str(passes)]
        command += ["--rest", str(rest_us)]
        return run(command, self.at_most + GRACE_SECONDS)

    def _offline(self, command: list[str], workload: Workload, plan: Plan, samples: int) -> Report:
        command += ["--workload", str(workload.path), "--samples", str(samples), *plan.flags]
        with metered([]) as usage:
            report = run(command, self.at_most + GRACE_SECONDS)
        return {**report, "foreign_cores": usage.foreign_cores}

    def _metered(self, server: Server, mode: list[str], workload: Workload, *flags: str) -> Report:
        command = [*self._command(server, workload), *flags]
        command[1:1] = mode
        with metered([server.process]) as usage:
            report = run(command, self.at_most + GRACE_SECONDS)
        return {
            **report,
            "cpu_seconds": usage.server_seconds,
            "foreign_cores": usage.foreign_cores,
        }

    def _command(self, server: Server, workload: Workload) -> list[str]:
        return [
            str(self.executable),
            *("--url", server.url),
            *("--dialect", server.dialect),
            *("--model", server.model),
            *("--workload", str(workload.path)),
            *("--at-most", str(self.at_most)),
        ]


class Running:
    """A generator that runs in the background; it is stopped when the block ends."""

    def __init__(self, command: list[str], limit: float) -> None:
        self._command = command
        self._limit = limit

    def __enter__(self) -> Running:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        return self

    def report(self) -> Report:
        """Waits for its end."""
        output, errors = self._process.communicate(timeout=self._limit)
        return _parse(self._command, self._process.returncode, output, errors)

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def run(command: list[str], limit: float) -> Report:
    """The JSON that a command prints; raises SystemExit when it fails or takes longer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired as error:
        raise SystemExit(f"{' '.join(command)}\n  took more than {limit} s") from error
    return _parse(command, done.returncode, done.stdout, done.stderr)


def _parse(command: list[str], status: int, output: str, errors: str) -> Report:
    if status != 0:
        raise SystemExit(f"{errors}\n{' '.join(command)}\n  ended with {status}")
    return json.loads(output)


def _flags(options: dict[str, Any]) -> list[str]:
    flags: list[str] = []
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        flags += [flag] if value is True else [flag, str(value)]
    return flags
