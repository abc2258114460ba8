"""What is measured of one model: each function is one scenario and returns its results."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from loadtest import infinity, offline, servers
from loadtest.generator import Generator, Plan, Report
from loadtest.servers import Server
from loadtest.workload import SHORT, Workload, Workloads

CORES = len(os.sched_getaffinity(0))
CLIENTS = (1, 8, 64, 256)
PARALLEL = 64
BATCH, BATCH_CLIENTS = 32, 4
LOADS = (0.5, 0.9, 1.5, 4.0)
GOOD_WITHIN_MS = 5000
# What a server and its client take between two passes of one client.
REST_US = 400
PEER_BATCHES = {"fastapi-32": 32, "fastapi-8": 8, "fastapi-1": 1}
# Far above the rounding of fp32, far below what a wrong rendering or a neighbour's padding does.
AGREEMENT = 1e-3


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    samples: int
    rounds: int
    sweep_samples: int
    peer_samples: int
    budgets: tuple[int, ...]
    overhead_passes: int
    open_seconds: float
    flood_seconds: float
    hang_ups: int
    cached_seconds: float


FULL = Size(
    samples=256,
    rounds=3,
    sweep_samples=128,
    peer_samples=128,
    budgets=(1, 256, 512, 1024),
    overhead_passes=400,
    open_seconds=15,
    flood_seconds=30,
    hang_ups=10_000,
    cached_seconds=8,
)
QUICK = Size(
    samples=96,
    rounds=1,
    sweep_samples=64,
    peer_samples=64,
    budgets=(1, 512),
    overhead_passes=150,
    open_seconds=5,
    flood_seconds=8,
    hang_ups=1_000,
    cached_seconds=3,
)


@dataclass(frozen=True)
class Bench:
    """One model, and all that measures it."""

    model: Path
    karat: Path
    workloads: Workloads
    generator: Generator
    size: Size
    scratch: Path
    infinity: Path | None
    say: Callable[[str], None]

    @property
    def graph(self) -> Path:
        """The model's graph."""
        return self.model / "model.onnx"

    @property
    def logs(self) -> Path:
        """Where servers write their logs."""
        return self.scratch / "logs"

    def start_karat(self, *flags: str) -> Any:
        """karat with this model alone, as a block."""
        return servers.karat(self.karat, self.repository, self.model.name, self.logs, *flags)

    @property
    def repository(self) -> Path:
        """The folder that the model is in."""
        return self.scratch / "repositories" / self.model.name

    def make_repository(self) -> None:
        """Links the model into a repository of its own, where it will be calibrated anew."""
        shutil.rmtree(self.repository, ignore_errors=True)
        folder = self.repository / self.model.name
        folder.mkdir(parents=True)
        for file in self.model.absolute().iterdir():
            if not file.name.endswith(".calibration.json"):
                (folder / file.name).symlink_to(file)

    def calibration(self) -> dict[str, Any]:
        """What karat chose for this machine."""
        files = self.repository.rglob("*.calibration.json")
        return {file.name: json.loads(file.read_text()) for file in files}


def measure(bench: Bench) -> dict[str, Any]:
    """Every scenario of one model, one after another."""
    bench.make_repository()
    plans = sweep(bench)
    with ExitStack() as running:
        uncached = running.enter_context(bench.start_karat("--cache-mb", "0"))
        with ExitStack() as peers:
            compared = [
                peers.enter_context(servers.fastapi(bench.model, max_batch, bench.logs))
                for max_batch in PEER_BATCHES.values()
            ]
            if bench.infinity:
                folder = infinity.model_folder(bench.model, bench.scratch)
                compared.append(peers.enter_context(servers.infinity(bench.infinity, folder, bench.logs)))
            agreement = check_agreement(bench, [uncached, *compared])
            throughput = compare_throughput(bench, plans, uncached, compared)
        peak = throughput[f"karat-{PARALLEL}"]
        results = {
            "workload": bench.workloads.mixed.summary(),
            "calibration": bench.calibration(),
            "agreement": agreement,
            "sweep": plans.report,
            "throughput": throughput,
            "overhead": overhead(bench, uncached),
            "open": open_loop(bench, uncached, peak["samples_per_second"]),
            "flood": flood(bench, uncached),
            "hang_up": hang_up(bench, uncached),
        }
    with bench.start_karat() as cached:
        results["mixed"] = mixed(bench, cached)
        results["cached"] = known_scores(bench, cached)
    return results


@dataclass(frozen=True)
class Plans:
    """The best static plan of each language, and all that were tried."""

    python: Plan
    rust: Plan
    report: list[dict[str, Any]]


def sweep(bench: Bench) -> Plans:
    """Tries static plans on raw sessions."""
    splits = {(CORES, 1), (1, CORES)}
    candidates = [
        Plan(sessions, threads, budget)
        for sessions, threads in sorted(splits, reverse=True)
        for budget in bench.size.budgets
    ]
    tried: list[dict[str, Any]] = []
    best: dict[str, tuple[float, Plan]] = {}
    languages = {"rust": bench.generator.offline, "python": bench.generator.offline_python}
    for plan in candidates:
        for language, run in languages.items():
            report = run(bench.graph, bench.workloads.mixed, plan, bench.size.sweep_samples)
            rate = report["tokens_per_second"]
            tried.append({"language": language, "plan": str(plan), "tokens_per_second": rate})
            best[language] = max(best.get(language, (0.0, plan)), (rate, plan), key=_rate)
            bench.say(f"offline, {language}, {plan}: {rate:,.0f} tokens/s")
    return Plans(python=best["python"][1], rust=best["rust"][1], report=tried)


def _rate(entry: tuple[float, Plan]) -> float:
    return entry[0]


def check_agreement(bench: Bench, running: list[Server]) -> dict[str, float]:
    """The largest difference of each server's scores from raw ONNX Runtime's."""
    some = bench.workloads.mixed.samples[:BATCH]
    expected = offline.scores(bench.graph, [(sample.ids, sample.type_ids) for sample in some])
    differences = {}
    for server in running:
        found = server.scores([(sample.prompt, sample.response) for sample in some])
        differences[server.name] = max(abs(one - other) for one, other in zip(found, expected, strict=True))
        if server.name != "infinity" and not differences[server.name] < AGREEMENT:
            raise SystemExit(
                f"{server.name} scores differ by {differences[server.name]} from ONNX Runtime's: "
                "there is no use in timing a server that computes something else"
            )
    return differences


def compare_throughput(bench: Bench, plans: Plans, uncached: Server, compared: list[Server]) -> dict[str, Any]:
    """Every contender once a round, so that a disturbance doesn't hit one alone."""
    generator, size, workload = bench.generator, bench.size, bench.workloads.mixed
    graph, count = bench.graph, size.samples
    contenders: dict[str, Callable[[], Report]] = {
        "offline-rust": partial(generator.offline, graph, workload, plans.rust, count),
        "offline-python": partial(generator.offline_python, graph, workload, plans.python, count),
    }
    for clients in CLIENTS:
        contenders[f"karat-{clients}"] = partial(generator.closed, uncached, workload, clients)
    contenders["karat-batches"] = partial(generator.closed, uncached, workload, BATCH_CLIENTS, batch=BATCH)
    for server in compared:
        contenders[server.name] = partial(generator.closed, server, workload, PARALLEL, samples=size.peer_samples)

    rounds: dict[str, list[Report]] = {name: [] for name in contenders}
    order = list(contenders)
    for number in range(size.rounds):
        for name in order[number % len(order) :] + order[: number % len(order)]:
            report = contenders[name]()
            rounds[name].append(report)
            bench.say(f"round {number + 1}, {name}: {report['tokens_per_second']:,.0f} tokens/s")
    return {name: _summed_up(reports) for name, reports in rounds.items()}


def _summed_up(reports: list[Report]) -> dict[str, Any]:
    middle: dict[str, Any] = {
        key: statistics.median(report[key] for report in reports)
        for key in ("tokens_per_second", "samples_per_second")
        if key in reports[0]
    }
    return {**middle, "rounds": reports}


def overhead(bench: Bench, server: Server) -> dict[str, Any]:
    """One client with a short input, beside the bare session run of the same inputs.

    Passes that follow each other without a pause find threads and caches warm. A
    second bare run rests between two passes for as long as server and client take
    between them, and so tells how much of what is added is that.
    """
    workload, passes = bench.workloads.short, bench.size.overhead_passes
    rounds = []
    for _ in range(bench.size.rounds):

        def bare(rest_us: int) -> dict[str, Any]:
            return {
                f"{threads}_threads": bench.generator.bare(bench.graph, workload, threads, passes, rest_us)[
                    "latency_ms"
                ]
                for threads in sorted({1, CORES})
            }

        unresting, resting = bare(0), bare(REST_US)
        report = bench.generator.closed(server, workload, 1, samples=passes)
        latency = report["latency_ms"]["p50"]
        entry = {
            "bare_ms": unresting,
            "resting_bare_ms": resting,
            "karat": report,
            "added_ms": latency - _fastest(unresting),
            "added_to_resting_ms": latency - _fastest(resting),
        }
        rounds.append(entry)
        bench.say(
            f"one client, {SHORT} tokens: {latency:.2f} ms, bare {_fastest(unresting):.2f} ms, "
            f"with rests {_fastest(resting):.2f} ms"
        )
    added = {key: statistics.median(entry[key] for entry in rounds) for key in ("added_ms", "added_to_resting_ms")}
    return {**added, "rounds": rounds}


def _fastest(bare: dict[str, Any]) -> float:
    return min(times["p50"] for times in bare.values())


def open_loop(bench: Bench, server: Server, capacity: float) -> dict[str, Report]:
    """Random arrivals at multiples of the measured capacity, in samples a second."""
    reports = {}
    for load in LOADS:
        report = bench.generator.open(
            server,
            bench.workloads.mixed,
            rate=load * capacity,
            seconds=bench.size.open_seconds,
            timeout_ms=GOOD_WITHIN_MS,
            good_within_ms=GOOD_WITHIN_MS,
        )
        reports[str(load)] = report
        settle(server)
        refusals = report["refusal_ms"]
        bench.say(
            f"open loop at {load} of capacity: {report['good_tokens_per_second']:,.0f} tokens/s in "
            f"time, p50 {report['latency_ms']['p50']:.0f} ms, replies {report['statuses']}, "
            f"refusals up to {refusals['max'] if refusals else 0:.0f} ms"
        )
    return reports


def flood(bench: Bench, server: Server) -> dict[str, Any]:
    """Short requests beside a flood of the longest, against one pass of the longest alone."""
    size = bench.size
    bare = bench.generator.bare(bench.graph, bench.workloads.long, 1, size.overhead_passes // 5)
    with bench.generator.start_closed(server, bench.workloads.long, PARALLEL // 2, seconds=size.flood_seconds) as long:
        time.sleep(1)
        short = bench.generator.open(server, bench.workloads.short, rate=10, seconds=size.flood_seconds - 2)
        flooding = long.report()
    settle(server)
    passes = short["latency_ms"]["p99"] / bare["latency_ms"]["p50"]
    bench.say(
        f"short beside long: p99 {short['latency_ms']['p99']:.0f} ms, {passes:.1f} times one pass "
        f"of the longest ({bare['latency_ms']['p50']:.0f} ms)"
    )
    return {
        "passes": passes,
        "longest_pass_ms": bare["latency_ms"],
        "short": short,
        "long": flooding,
    }


def hang_up(bench: Bench, server: Server) -> dict[str, Any]:
    """Clients that leave while other work of a higher priority keeps every worker busy.

    So none of their samples can be running, and every sample that was computed
    beyond those of the others was computed for nobody.
    """
    count = bench.size.hang_ups
    clients, busy = CORES * 4, {"priority": "high"}
    long = bench.workloads.long
    bench.generator.closed(server, long, clients, seconds=3, **busy)
    settle(server)
    before, resident = server.metrics(), server.resident_bytes()
    with bench.generator.start_closed(server, long, clients, seconds=max(8, count / 300), **busy) as others:
        time.sleep(1)
        left = bench.generator.hang_up(server, bench.workloads.short, clients=count)
        stayed = others.report()
    settle(server)
    after = server.metrics()

    def grown(name: str) -> float:
        return after.get(name, 0.0) - before.get(name, 0.0)

    report = {
        "clients": count,
        "left": left,
        "stayed": stayed,
        "others_outlasted_them": stayed["seconds"] > left["seconds"] + 1,
        "queued_afterwards": after["karat_queue_samples"],
        "running_afterwards": after["karat_forward_passes_running"],
        "samples_dropped": grown("karat_samples_cancelled_total"),
        "samples_computed_for_nobody": grown("karat_batch_samples_sum") - stayed["samples"],
        "resident_before": resident,
        "resident_after": server.resident_bytes(),
    }
    report["resident_ratio"] = report["resident_after"] / resident
    bench.say(
        f"{left['left']} clients hung up in {left['seconds']:.1f} s: "
        f"{report['samples_computed_for_nobody']:.0f} samples computed for nobody, "
        f"{report['queued_afterwards']:.0f} queued, memory x{report['resident_ratio']:.3f}"
    )
    return report


def mixed(bench: Bench, server: Server) -> Report:
    """As in training: groups, repeats and clients that leave, with the cache on."""
    report = bench.generator.closed(
        server,
        bench.workloads.mixed,
        PARALLEL,
        groups=True,
        duplicates=0.2,
        hang_up=0.05,
    )
    bench.say(f"groups, repeats, hang-ups: {report['good_tokens_per_second']:,.0f} tokens/s")
    return report


def known_scores(bench: Bench, server: Server) -> Report:
    """Batches whose scores are all in the cache."""
    workload: Workload = bench.workloads.mixed
    bench.generator.closed(server, workload, BATCH_CLIENTS, batch=BATCH)
    report = bench.generator.closed(server, workload, BATCH_CLIENTS, batch=BATCH, seconds=bench.size.cached_seconds)
    bench.say(f"known scores: {report['samples_per_second']:,.0f} scores/s")
    return report


def settle(server: Server) -> None:
    """Waits until the server has nothing left to do, half a minute at most."""
    deadline = time.monotonic() + 30
    while not server.is_idle(0.5) and time.monotonic() < deadline:
        pass
