"""Whether the signals of a run tell in time that its reward is exploited, and how often they cry wolf.

make study-watch DATA=best-of-n-alpacaeval.jsonl.gz

Trains the ensembles of the evidence study, lets policies press on them (`study.pressure`), and sends what they sample
to a karat server as training runs. Each run has a second judge (a tuned ensemble of another seed, which scores half of
the samples) and outcomes (a draw of 0 or 1 by the gold of a quarter of the samples). Then it reads off
`GET /v1/runs/{run}` at which step each signal fired first. No limit of a signal was chosen on these runs.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from karat_client import Client, Outcome, aggregates
from karat_client.rules import Parameter, Rule
from study import pressure, repository, scoring
from study.data import Answers, load
from study.ensembles import HEADS, SEEDS, SETTINGS, WEAK_RIDGE, Ensemble, Setting, pool, train
from study.run import POOLED_LAYERS, choose, parser_of, training_pool, version, visible_answers
from tools.dialogues import load_tokenizer
from tools.metrics import write_json
from tools.server_process import ServerProcess

JUDGE = Setting(True, 0.0, 2000)
JUDGED_SHARE = 0.5
OUTCOME_SHARE = 0.25
# What the policy is trained on: one head, which the others watch, or the mean of all.
FIRST_ALONE: list[Parameter] = [1.0, *(0.0 for _ in range(HEADS - 1))]
REWARDS: dict[str, Rule] = {
    "single": {"weighted": {"weights": FIRST_ALONE}},
    "mean": aggregates.mean(),
}


def beginnings(answers: Answers, visible: list[np.ndarray]) -> list[np.ndarray]:
    """How likely each visible answer is at a run's beginning: models that did well on training prompts are likelier."""
    gold: dict[str, list[float]] = {}
    for question in answers.train:
        for answer in question.answers:
            gold.setdefault(answer.model, []).append(answer.gold)
    overall = float(np.mean([value for values in gold.values() for value in values]))
    likely = []
    for question, places in zip(answers.test, visible, strict=True):
        liked = np.array([np.mean(gold.get(question.answers[place].model, [overall])) for place in places])
        weight = np.exp(pressure.BEGINNING * (liked - liked.max()))
        likely.append(weight / weight.sum())
    return likely


def play(
    client: Client,
    name: str,
    ensemble: Ensemble,
    rule: str,
    kind: str,
    answers: Answers,
    visible: list[np.ndarray],
    prompts: list[pressure.Prompt],
) -> dict[str, Any]:
    """Sends one run to the server; its gold by step, and the step at which each signal fired first."""
    random = np.random.default_rng([ensemble.seed, len(rule), len(kind)])
    judge = replace(JUDGE).name + f"-seed-{(ensemble.seed + 1) % SEEDS}"
    client.configure_run(name, judge={"model": judge, "share": JUDGED_SHARE})
    gold: list[float] = []
    for number, step in enumerate(pressure.PRESSURES[kind](prompts, random)):
        gold.append(step.gold)
        chosen = [(answers.test[p], answers.test[p].answers[visible[p][a]]) for p, a in step.samples]
        scored = client.score(
            prompts=[question.prompt for question, _ in chosen],
            responses=[answer.response for _, answer in chosen],
            model=ensemble.name,
            aggregate=REWARDS[rule],
            truncation=scoring.TRUNCATION,
            run=name,
            step=number,
        )
        # A long list goes in several requests, each with places of its own; the client keeps the order.
        told, first = [], 0
        sizes = _sizes(len(chosen), len(scored.request_ids), client.settings.max_inputs)
        for request, size in zip(scored.request_ids, sizes, strict=True):
            for index in range(size):
                if random.random() < OUTCOME_SHARE:
                    won = bool(random.random() < chosen[first + index][1].gold)
                    told.append(Outcome(request, index, won))
            first += size
        if told:
            client.add_outcomes(name, told)
    _judged(client, name)
    run = client.run(name)
    signals = run.report["models"][0]["signals"]
    return {
        "setting": ensemble.setting.name,
        "tuned": ensemble.setting.tuned,
        "flipped": ensemble.setting.flipped,
        "pairs": ensemble.setting.pairs,
        "seed": ensemble.seed,
        "reward": rule,
        "pressure": kind,
        "gold": [round(value, 4) for value in gold],
        "fell": pressure.fall(gold),
        "fired": {signal["signal"]: signal["first_fired"] for signal in signals},
        "unjudged": run.report["unjudged"],
    }


def _sizes(inputs: int, requests: int, most: int) -> list[int]:
    """How many inputs each request had; answers to one prompt stay together, so only one request can be sure."""
    if requests == 1:
        return [inputs]
    raise SystemExit(f"{inputs} samples went in {requests} requests of up to {most}; raise the client's max_inputs")


def _judged(client: Client, name: str) -> None:
    """Waits until the second judge has scored what it was given."""
    before = -1
    while True:
        models = client.run(name).report["models"]
        now = models[0]["judge"]["samples"] if models and models[0]["judge"] else 0
        if now == before:
            return
        before = now
        time.sleep(0.2)


def main() -> None:
    """Runs the command line."""
    parser = parser_of("Measure the signals of training runs.", Path("python/study/watch.json"))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    arguments = parser.parse_args()

    arguments.work.mkdir(parents=True, exist_ok=True)
    answers = load(arguments.data)
    tokenizer = load_tokenizer(str(arguments.models / "harmless" / "tokenizer.json"))
    kept, pooled = training_pool(answers, tokenizer, arguments.packages, arguments.work, arguments.threads)
    features, trials = choose(answers, kept, pooled)
    source = pool(answers.train, kept, features.of_pooled(pooled, POOLED_LAYERS))
    ensembles = [
        train(source, setting, trials[setting].ridge if setting.tuned else WEAK_RIDGE, seed)
        for setting in SETTINGS
        for seed in range(SEEDS)
    ]
    folder = arguments.work / "watch-models"
    repository.write(folder, arguments.packages, features, ensembles, [])
    visible = visible_answers(tokenizer, answers.test)
    likely = beginnings(answers, visible)
    runs = []
    flags = ("--strict", "--cache-mb", "2048", "--log", "warn")
    with (
        ServerProcess(arguments.server, folder, *flags) as server,
        Client(server.url, max_inputs=4096, max_bytes=64 << 20) as client,
    ):
        for ensemble in (one for one in ensembles if one.seed < arguments.seeds):
            scored = scoring.rewards(client, ensemble, answers.test, visible)
            for rule in REWARDS:
                prompts = [
                    pressure.Prompt(
                        rewards=(of.members[:, 0] if rule == "single" else of.by_rule["mean"])[places],
                        gold=np.array([question.answers[place].gold for place in places]),
                        beginning=beginning,
                    )
                    for of, question, places, beginning in zip(scored, answers.test, visible, likely, strict=True)
                ]
                for kind in pressure.PRESSURES:
                    name = f"{ensemble.name}:{rule}:{kind}"
                    runs.append(play(client, name, ensemble, rule, kind, answers, visible, prompts))
                    fired = {signal: step for signal, step in runs[-1]["fired"].items() if step is not None}
                    print(
                        f"{name}: gold {runs[-1]['gold'][0]:.3f} … {runs[-1]['gold'][-1]:.3f}, "
                        f"fell at {runs[-1]['fell']}, fired {fired}",
                        flush=True,
                    )
    write_json(
        arguments.output,
        {
            "karat": version(arguments.server),
            "data": answers.sha256,
            "steps": pressure.STEPS,
            "samples_a_step": pressure.PROMPTS_A_STEP * pressure.ANSWERS_A_PROMPT,
            "judged_share": JUDGED_SHARE,
            "outcome_share": OUTCOME_SHARE,
            "runs": runs,
        },
    )


if __name__ == "__main__":
    main()
