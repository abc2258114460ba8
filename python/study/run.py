"""Runs the whole study and writes its figures: trains, serves, scores, compares.

make study DATA=best-of-n-alpacaeval.jsonl.gz
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from karat_client import Client
from study import farming, repository, scoring, trading
from study.compare import compare
from study.data import Answers, Question, load
from study.ensembles import (
    HEADS,
    LAYER_SETS,
    RIDGES,
    SEEDS,
    SETTINGS,
    WEAK_RIDGE,
    Ensemble,
    Pool,
    Setting,
    Trial,
    cross_validate,
    pool,
    train,
)
from study.trunk import (
    LEAST_RESPONSE_TOKENS,
    MAX_TOKENS,
    Features,
    encode,
    pooled_graph,
    run,
)
from tools.dialogues import load_tokenizer
from tools.metrics import write_json
from tools.server_process import ServerProcess

POOLED_LAYERS = (3, 4, 6)
# How many answers to each training prompt the heads may see.
ANSWERS_A_PROMPT = 24
# How far a score that karat serves may be from the head that was trained.
TOLERANCE = 1e-3
CHECKED_ANSWERS = 64


class Stopwatch:
    """Tells and remembers how long each part of the study took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Times what runs in the block."""
        print(f"{name} …", flush=True)
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 1)
        print(f"{name}: {self.seconds[name]} s", flush=True)


def training_pool(
    answers: Answers, tokenizer: Tokenizer, packages: Path, work: Path, threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """The training answers that are kept, and their states; from a file where there is one."""
    stored = work / f"pooled-{answers.sha256[:16]}-{MAX_TOKENS}.npz"
    if not stored.exists():
        pairs = [(q.prompt, a.response) for q in answers.train for a in q.answers]
        encoded = encode(tokenizer, pairs)
        longest_prompt = MAX_TOKENS - LEAST_RESPONSE_TOKENS
        drawn = _draw(answers.train)
        kept = [i for i in drawn if (one := encoded[i]) is not None and one[1] <= longest_prompt]
        inputs = [one for i in kept if (one := encoded[i]) is not None]
        pooled = run(pooled_graph(packages, POOLED_LAYERS), inputs, threads)
        partial = stored.with_suffix(".partial.npz")
        np.savez(partial, kept=np.array(kept), pooled=pooled)
        os.replace(partial, stored)
    with np.load(stored) as file:
        return file["kept"], file["pooled"]


def _draw(questions: tuple[Question, ...]) -> list[int]:
    """`ANSWERS_A_PROMPT` answers of each question, numbered through all questions."""
    random = np.random.default_rng(0)
    drawn, first = [], 0
    for question in questions:
        count = len(question.answers)
        picked = random.choice(count, min(count, ANSWERS_A_PROMPT), replace=False)
        drawn += sorted(int(index) + first for index in picked)
        first += count
    return drawn


def choose(answers: Answers, kept: np.ndarray, pooled: np.ndarray) -> tuple[Features, dict[Setting, Trial]]:
    """The layers that do best over all settings, and with them the best ridge of each setting."""
    tuned = [setting for setting in SETTINGS if setting.tuned]
    trials: dict[tuple[int, ...], dict[Setting, Trial]] = {}
    for layers in LAYER_SETS:
        values = Features(layers).of_pooled(pooled, POOLED_LAYERS)
        source = pool(answers.train, kept, values)
        trials[layers] = {
            setting: min(
                (cross_validate(source, setting, layers, ridge) for ridge in RIDGES),
                key=lambda trial: trial.log_loss,
            )
            for setting in tuned
        }
        told = ", ".join(f"{t.log_loss:.4f}" for t in trials[layers].values())
        print(f"  layers {list(layers)}: log-loss {told}", flush=True)
    best = min(trials, key=lambda layers: sum(t.log_loss for t in trials[layers].values()))
    return Features(best), trials[best]


def check_served(client: Client, answers: Answers, kept: np.ndarray, source: Pool, ensembles: list[Ensemble]) -> float:
    """The largest difference between what karat serves and what was trained, on training answers.

    Raises SystemExit when it is more than `TOLERANCE` standard deviations.
    """
    pairs = [(q.prompt, a.response) for q in answers.train for a in q.answers]
    rows = np.random.default_rng(0).choice(len(kept), CHECKED_ANSWERS, replace=False)
    prompts, responses = zip(*(pairs[kept[row]] for row in rows), strict=True)
    worst = 0.0
    for ensemble in ensembles:
        scores = client.score(
            prompts=prompts,
            responses=responses,
            model=ensemble.name,
            truncation=scoring.TRUNCATION,
            include=["members"],
        )
        served = np.array([result.ensemble.members for result in scores.results])
        trained = (source.features[rows] @ ensemble.weight - ensemble.means) / ensemble.deviations
        worst = max(worst, float(np.abs(served - trained).max()))
    if worst > TOLERANCE:
        raise SystemExit(f"karat's scores differ from the trained heads' by {worst:.2e}")
    return worst


def visible_answers(tokenizer: Tokenizer, questions: tuple[Question, ...]) -> list[np.ndarray]:
    """Which answers of each question have visible text."""
    visible = []
    for question in questions:
        encoded = encode(tokenizer, [(question.prompt, a.response) for a in question.answers])
        visible.append(np.array([i for i, one in enumerate(encoded) if one is not None]))
    return visible


def parser_of(description: str, output: Path) -> argparse.ArgumentParser:
    """The command line of a study that serves heads on the trunk and writes `output`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, required=True, help="what rebuild_data.py writes")
    parser.add_argument("--server", type=Path, default=Path("target/release/karat"))
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--packages", type=Path, default=Path(".karat/packages"))
    parser.add_argument("--work", type=Path, default=Path(".karat/study"))
    parser.add_argument("--output", type=Path, default=output)
    parser.add_argument("--threads", type=int, default=0, help="for the trunk; 0 is all cores")
    return parser


def main() -> None:
    """Runs the command line."""
    parser = parser_of("Run the over-optimisation study.", Path("python/study/results.json"))
    arguments = parser.parse_args()

    watch = Stopwatch()
    arguments.work.mkdir(parents=True, exist_ok=True)
    answers = load(arguments.data)
    tokenizer = load_tokenizer(str(arguments.models / "harmless" / "tokenizer.json"))
    with watch.part("trunk states of the training answers"):
        kept, pooled = training_pool(answers, tokenizer, arguments.packages, arguments.work, arguments.threads)
    with watch.part("choice of layers and ridges"):
        features, chosen = choose(answers, kept, pooled)
    with watch.part("training"):
        source = pool(answers.train, kept, features.of_pooled(pooled, POOLED_LAYERS))
        ensembles = [
            train(source, setting, chosen[setting].ridge if setting.tuned else WEAK_RIDGE, seed)
            for setting in SETTINGS
            for seed in range(SEEDS)
        ]
        folder = arguments.work / "models"
        others = [arguments.models / name for name in ("relevance", "harmless", "assistant")]
        repository.write(folder, arguments.packages, features, ensembles, others)
        farming.write_process_model(arguments.models / "grammar", folder / farming.MODEL)
        trading.write_raw_model(folder / trading.RAW)
    flags = ("--strict", "--cache-mb", "1024", "--log", "warn")
    with ServerProcess(arguments.server, folder, *flags) as server, Client(server.url) as client:
        with watch.part("check of the served heads"):
            difference = check_served(client, answers, kept, source, ensembles)
        with watch.part("scoring the held-out answers"):
            visible = visible_answers(tokenizer, answers.test)
            scored = scoring.all_rewards(client, ensembles, answers.test, visible)
        with watch.part("farming a process reward"):
            farmed = farming.run(client)
        with watch.part("trading one property for another"):
            traded = trading.run(client, answers.train, answers.test)
    with watch.part("bootstrap"):
        compared = compare(ensembles, answers.test, scored)

    report: dict[str, Any] = {
        "karat": version(arguments.server),
        "cores": os.cpu_count(),
        "seconds": {**watch.seconds, "all": round(sum(watch.seconds.values()), 1)},
        "data": {
            "sha256": answers.sha256,
            "train_prompts": len(answers.train),
            "test_prompts": len(answers.test),
            "train_answers": len(kept),
            "test_answers": sum(len(question.answers) for question in answers.test),
            "unscored_test_answers": sum(len(q.answers) - len(v) for q, v in zip(answers.test, visible, strict=True)),
        },
        "heads": HEADS,
        "seeds": SEEDS,
        "max_tokens": MAX_TOKENS,
        "largest_difference": float(f"{difference:.1e}"),
        "layers": list(features.layers),
        "weak_ridge": WEAK_RIDGE,
        "cross_validation": {s.name: asdict(t) for s, t in chosen.items()},
        "settings": compared,
        "farming": farmed,
        "trading": traded,
    }
    write_json(arguments.output, report)
    print(f"{report['seconds']['all']:.0f} s in all; wrote {arguments.output}")


def version(server: Path) -> str:
    """What the program says that it is."""
    told = subprocess.run([server, "--version"], capture_output=True, check=True, text=True)
    return told.stdout.strip()


if __name__ == "__main__":
    main()
