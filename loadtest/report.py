"""Results as tables: on the terminal, and in the README, where no figure is typed by hand.

python -m loadtest.report      # writes the figures of results/latest.json into README.md
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from loadtest import targets
from loadtest.chart import NAMES

HERE = Path(__file__).parent
LATEST = HERE / "results" / "latest.json"
README = HERE / "README.md"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
# Something else that takes this share of a core shows in the ratios.
DISTURBED_CORES = 0.05


def target_rows(results: dict[str, Any]) -> list[list[str]]:
    """One row a target, the columns as `targets.HEADINGS`."""
    measured = results["models"].items()
    return [target.row() for name, model in measured for target in targets.of_model(name, model)]


def throughput_rows(results: dict[str, Any]) -> list[list[str]]:
    """One row a contender and model."""
    rows = []
    for name, model in results["models"].items():
        throughput = model["throughput"]
        optimum = targets.offline_optimum(throughput)
        for contender, label in {optimum: "offline optimum", **NAMES}.items():
            if contender not in throughput:
                continue
            rate = throughput[contender]["tokens_per_second"]
            share = targets.ratio(throughput, contender, optimum)
            latency = throughput[contender]["rounds"][0].get("latency_ms")
            by_processor = targets.ratio(throughput, contender, optimum, "cpu_seconds")
            times = [f"{latency['p50']:,.0f}", f"{latency['p99']:,.0f}"] if latency else ["", ""]
            rows.append([name, label, f"{rate:,.0f}", f"{share:.2f}", f"{by_processor:.2f}", *times])
    return rows


def open_rows(results: dict[str, Any]) -> list[list[str]]:
    """One row an offered load and model."""
    rows = []
    for name, model in results["models"].items():
        peak = model["throughput"]["karat-64"]["tokens_per_second"]
        for load, report in model["open"].items():
            latency, refusals = report["latency_ms"], report["refusal_ms"]
            refused = ["0", "", ""]
            if refusals:
                refused = [
                    str(refusals["count"]),
                    f"{refusals['p50']:.1f}",
                    f"{refusals['max']:.1f}",
                ]
            rows.append(
                [
                    name,
                    load,
                    f"{report['good_tokens_per_second'] / peak:.2f}",
                    f"{latency['p50']:,.0f}",
                    f"{latency['p99']:,.0f}",
                    str(report["statuses"].get("504", 0)),
                    *refused,
                ]
            )
    return rows


def disturbance(results: dict[str, Any]) -> str:
    """What else kept the machine busy, in a sentence."""
    foreign = [
        report["foreign_cores"]
        for model in results["models"].values()
        for contender in model["throughput"].values()
        for report in contender["rounds"]
    ]
    worst = max(foreign)
    text = f"Other programs took {worst:.2f} cores at most while throughput was measured"
    if worst > DISTURBED_CORES:
        return f"{text}: the machine was NOT quiet, so repeat the run before you quote it."
    return f"{text}."


def table(headings: list[str], rows: list[list[str]]) -> str:
    """For a terminal."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [headings, ["-" * width for width in widths], *rows]
    ]
    return "\n".join(lines)


def markdown(headings: list[str], rows: list[list[str]]) -> str:
    """For the README."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


THROUGHPUT_HEADINGS = [
    "model",
    "",
    "tokens/s",
    "of the optimum",
    "by processor time",
    "p50 ms",
    "p99 ms",
]
OPEN_HEADINGS = [
    "model",
    "load",
    "in time / peak",
    "p50 ms",
    "p99 ms",
    "too late",
    "refused",
    "p50 ms",
    "max ms",
]


def print_tables(results: dict[str, Any]) -> None:
    """Everything, for a terminal."""
    print("\n" + table(THROUGHPUT_HEADINGS, throughput_rows(results)))
    print("\n" + table(OPEN_HEADINGS, open_rows(results)))
    print("\n" + table(targets.HEADINGS, target_rows(results)))
    print("\n" + disturbance(results))


def update_readme(results: dict[str, Any], readme: Path) -> None:
    """Replaces the figures between the two marks."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    section = "\n\n".join(
        [
            BEGIN,
            f"{results['started'][:10]}, commit `{results['commit'][:12]}`"
            f"{' with changes' if results['changed_since'] else ''}, "
            f"{machine['cores']} cores of {machine['processor']}, "
            f"{machine['memory_gib']} GiB, {machine['system']}; {versions}. "
            f"{results['rounds']} rounds, {results['seconds'] / 60:.0f} minutes. " + disturbance(results),
            "What must be reached:",
            markdown(targets.HEADINGS, target_rows(results)),
            "Closed loop, 64 clients where no number is given:",
            markdown(THROUGHPUT_HEADINGS, throughput_rows(results)),
            "Open loop, replies in time are those within 5 s; the last three columns are refusals:",
            markdown(OPEN_HEADINGS, open_rows(results)),
            "![Throughput and goodput](results/chart.svg)",
            END,
        ]
    )
    text = readme.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(before + section + after)


def main() -> None:
    """Runs the command line."""
    update_readme(json.loads(LATEST.read_text()), README)


if __name__ == "__main__":
    main()
