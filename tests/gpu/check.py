"""Checks karat on a GPU: scores against the processor's and Transformers', speed beside what the GPU and others reach.

    python3 check.py                                   # on a GPU machine, in the bundle's folder
    python3 check.py --only parity,sharing             # parts by themselves
    python3 -m tests.gpu.check --provider cpu --tiny   # every part's way, on any machine, in a checkout

Each part runs in a process of its own, which is cut when its time is up; all that was found is written after each.
Only the standard library is needed; PyTorch Transformers is measured where the Python has it. What can't be measured
for lack of something gets a row that says so. It fails when a score is off or a part breaks. Targets of speed are told,
not enforced: they hold for an H100 or H200.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.gpu import foreign, pieces
from tests.gpu import kit as kits
from tests.gpu.findings import Row, Table, as_text, read
from tests.gpu.kit import Kit, Served
from tests.gpu.parts import PARTS, Part

# All of it, on one GPU.
MOST_SECONDS = 360.0
# A machine that builds and tests is slow at times, and nothing is measured where only the way is tried.
SLOWER = 6.0
# Less than this is left for nothing.
LEAST_SECONDS = 5.0
# Until the largest model is written and loaded.
LARGEST_READY_SECONDS = 90.0
# Memory is a disk as well, and a fast one, where it is large enough for the checkpoints.
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the folder in it is made by tempfile
CHECKPOINT_BYTES = 22 << 30
# Of each server's log.
TOLD_BYTES = 20_000
# Beside the program that runs, in a bundle; at the top of a checkout.
SOURCES = Path(__file__).resolve().parents[2]


@dataclass
class Check:
    """A run of the check: what was found so far, and the server that waits for the next part."""

    kit: Kit
    output: Path
    deadline: float
    stack: contextlib.ExitStack
    rows: list[Row] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    serving: tuple[str, Served] | None = None

    def run(self, parts: Sequence[Part]) -> None:
        """Part after part."""
        for part in parts:
            print(f"\n{part.name}: {part.shows}", flush=True)
            file = self.kit.found(part.name)
            file.unlink(missing_ok=True)
            started = time.monotonic()
            self._run(part, Table(part.name, file))
            found, self.numbers[part.name] = read(file)
            self.rows += [*found, Row(part.name, "seconds", f"{time.monotonic() - started:.1f}")]
            self._write()

    def _run(self, part: Part, table: Table) -> None:
        left = self.deadline - time.monotonic()
        if left < LEAST_SECONDS:
            table.add("all of it", "not measured: the time is up")
            return
        try:
            served = self._served(part, left)
        # `running` says so where a server doesn't start.
        except (SystemExit, OSError, RuntimeError) as error:
            table.must("server", _last_line(str(error)), "starts", holds=False)
            return
        left = self.deadline - time.monotonic()
        seconds = min(part.seconds * (SLOWER if self.kit.tiny else 1.0), left)
        command = [sys.executable, "-m", "tests.gpu.check", "--part", part.name]
        command += ["--kit", json.dumps({name: str(value) for name, value in vars(self.kit).items()})]
        if served:
            command += ["--served", json.dumps(vars(served))]
        process = subprocess.Popen(command, cwd=SOURCES, stderr=subprocess.PIPE, text=True)
        try:
            _, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            end(process.pid)
            process.communicate()
            self._append(part, "the rest", f"cut: it took more than {seconds:.0f} s", fails=False)
            return
        if process.returncode != 0:
            sys.stderr.write(errors)
            self._append(part, "the rest", f"failed: {_last_line(errors)}", fails=True)

    def _append(self, part: Part, what: str, told: str, *, fails: bool) -> None:
        """A row behind those that the part wrote itself."""
        file = self.kit.found(part.name)
        rows, numbers = read(file)
        table = Table(part.name, file, rows, numbers)
        table.add(what, told, "runs to its end", holds=False, must=fails)

    def _served(self, part: Part, left: float) -> Served | None:
        """The server that the part wants; one that runs for another part ends."""
        if self.serving and self.serving[0] == part.served:
            return self.serving[1]
        self.serving = None
        self.stack.close()
        if part.served is None:
            return None
        started = time.monotonic()
        repository = self.kit.repository(part.served)
        print(f"  {part.served} is written: {time.monotonic() - started:.1f} s", flush=True)
        served = self.stack.enter_context(kits.serving(self.kit, repository, seconds=min(LARGEST_READY_SECONDS, left)))
        self.serving = (part.served, served)
        return served

    def _write(self) -> None:
        rows = [{**vars(row), "verdict": row.verdict} for row in self.rows]
        content = {"rows": rows, "numbers": self.numbers}
        (self.output / "results.json").write_text(json.dumps(content, indent=1) + "\n")
        (self.output / "table.txt").write_text(as_text(self.rows) + "\n")
        (self.output / "logs.txt").write_text("\n".join(_ends(self.kit.work / "logs")))

    @property
    def failed(self) -> bool:
        """Whether a score was off, or a part broke."""
        return any(row.must and not row.holds for row in self.rows)


def end(pid: int) -> None:
    """Kills a process with all that it has started, servers too."""
    family = [pid]
    for parent in family:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                family += [int(child) for child in (task / "children").read_text().split()]
    for process in reversed(family):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:300] if lines else "it ended without a word"


def _kit(text: str) -> Kit:
    """A kit as another process wrote it."""
    told = json.loads(text)
    paths = {name: Path(told[name]) for name in ("karat", "loadtest", "onnxruntime", "recorded", "foreign", "work")}
    return Kit(**paths, provider=told["provider"], tiny=told["tiny"] == "True", peer=told["peer"])


def _ends(logs: Path) -> list[str]:
    """The ends of the servers' logs."""
    read = {log.name: log.read_text(errors="replace") for log in sorted(logs.glob("*.log"))}
    return [f"==> {name}\n{text[-TOLD_BYTES:]}" for name, text in read.items()]


def run_part(name: str, kit: Kit, served: Served | None) -> None:
    """One part, in this process."""
    part = next(part for part in PARTS if part.name == name)
    part.run(kit, Table(name, kit.found(name)), served)


def kit_of(arguments: argparse.Namespace, work: Path) -> Kit:
    """What a bundle unpacks to, or what a checkout holds."""
    settings = {"work": work, "provider": arguments.provider, "tiny": arguments.tiny, "peer": arguments.peer}
    if (SOURCES / pieces.INDEX).is_file():
        pieces.unpack(SOURCES, work / "unpacked")
        kit = Kit(
            karat=work / "unpacked/bin/karat",
            loadtest=work / "unpacked/bin/loadtest",
            onnxruntime=work / "unpacked/lib/libonnxruntime.so",
            recorded=work / "unpacked/recorded",
            foreign=work / "unpacked/foreign",
            **settings,
        )
    else:
        kit = Kit(
            karat=arguments.karat,
            loadtest=arguments.loadtest,
            onnxruntime=arguments.onnxruntime,
            recorded=SOURCES / "tests/checkpoints",
            foreign=work / "foreign",
            **settings,
        )
        foreign.strip(SOURCES / "tests/graphs/exported/bert/model.onnx", kit.foreign)
    whole: dict[str, Any] = {name: value.resolve() for name, value in vars(kit).items() if isinstance(value, Path)}
    return dataclasses.replace(kit, **whole)


def scratch(arguments: argparse.Namespace) -> Path:
    """A new folder for the checkpoints: in memory where that is large enough."""
    needed = 1 << 30 if arguments.tiny else CHECKPOINT_BYTES
    places = [SHARED_MEMORY] if SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free > needed else []
    return Path(tempfile.mkdtemp(prefix="karat-gpu-check-", dir=places[0] if places else None))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    names = ", ".join(f"{part.name} ({part.shows})" for part in PARTS)
    found = argparse.ArgumentParser(description="Check karat on a GPU.", epilog=f"Parts: {names}.")
    found.add_argument("--only", default=None, help="parts, separated by commas")
    found.add_argument("--provider", choices=["cuda", "cpu"], default="cuda")
    found.add_argument("--tiny", action="store_true", help="models of a few numbers, to try every part's way")
    found.add_argument("--seconds", type=float, default=MOST_SECONDS, help="for all of it")
    found.add_argument("--output", type=Path, default=Path(os.environ.get("OUT", "gpu-check")), help="for results")
    found.add_argument(
        "--work", type=Path, default=None, help="for what is unpacked and written; kept where it is named"
    )
    found.add_argument("--peer", default=sys.executable, help="a Python that has torch and transformers")
    found.add_argument("--karat", type=Path, default=Path("target/release/karat"), help="in a checkout")
    found.add_argument("--loadtest", type=Path, default=Path("target/release/examples/loadtest"), help="in a checkout")
    found.add_argument("--onnxruntime", type=Path, default=Path(os.environ.get("KARAT_ONNXRUNTIME", "")))
    for name in ("part", "kit", "served"):
        found.add_argument(f"--{name}", default=None, help=argparse.SUPPRESS)
    return found


def chosen(only: str | None) -> list[Part]:
    """The parts that are asked for, in their order; raises SystemExit where one isn't known."""
    if only is None:
        return list(PARTS)
    names = only.split(",")
    unknown = set(names) - {part.name for part in PARTS}
    if unknown:
        known = ", ".join(part.name for part in PARTS)
        raise SystemExit(f"there is no part {', '.join(sorted(unknown))}; write one of {known}")
    return [part for part in PARTS if part.name in names]


def main() -> None:
    """Runs the command line."""
    arguments = parser().parse_args()
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    if arguments.part:
        served = Served(**json.loads(arguments.served)) if arguments.served else None
        run_part(arguments.part, _kit(arguments.kit), served)
        return
    parts = chosen(arguments.only)
    output = arguments.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    work = arguments.work.resolve() if arguments.work else scratch(arguments)
    try:
        kit = kit_of(arguments, work)
        print(f"unpacked: {time.monotonic() - started:.1f} s", flush=True)
        with contextlib.ExitStack() as stack:
            check = Check(kit, output, started + arguments.seconds, stack)
            check.run(parts)
    except pieces.Damaged as error:
        raise SystemExit(str(error)) from error
    finally:
        if not arguments.work:
            shutil.rmtree(work, ignore_errors=True)
    print(f"\n{as_text(check.rows)}\n\n{time.monotonic() - started:.0f} s; written: {output}/results.json, table.txt")
    if check.failed:
        raise SystemExit("scores are off, or a part broke: see the rows marked MISSED")


if __name__ == "__main__":
    main()
