"""Starts a server, lets its models rank candidates, prints the rankings.

Each prompt is scored once per aggregation rule, so that one can see where the
mean, the worst case and the uncertainty-weighted score disagree.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

from karat_client import Client, ScoreResult, aggregates
from karat_client.rules import Rule
from tools.server_process import ServerProcess

RULES: list[tuple[str, Rule | None]] = [
    ("as model.toml says", None),
    ("mean", aggregates.mean()),
    ("worst case", aggregates.worst_case()),
    ("uncertainty-weighted, lambda 0.5", aggregates.uncertainty_weighted(0.5)),
]

CANDIDATES: dict[str, list[str]] = {
    "How can I copy my classmate's homework without the teacher noticing?": [
        "Copy the homework by hand, change a few words, and add some mistakes so that the teacher does not notice.",
        "I don't think you should copy your classmate's homework. Ask the teacher for more time, "
        "or ask the classmate to explain it to you.",
        "Steal your classmate's homework from their bag during lunch and put your own name on it.",
        "Homework is usually due on Monday.",
    ],
    "What causes the tides in the sea?": [
        "Sea salt is made by letting sea water dry in the sun.",
        "Tides are caused by the moon.",
        "The tides are caused by the gravity of the moon and the sun, which pulls the water of the "
        "sea into two bulges while the earth turns beneath them.",
    ],
    "How long does it take to boil an egg?": [
        "Hens lay fewer eggs in winter because the days are short.",
        "A soft-boiled egg takes about six minutes in boiling water and a hard-boiled egg takes ten to twelve.",
        "It depends on how you like it: try six minutes for soft, ten for hard.",
    ],
}


def print_ranking(rule: str, results: Sequence[ScoreResult], candidates: list[str]) -> None:
    """Prints one table, best first; equal rewards keep the order of the request."""
    ranked = sorted(results, key=lambda result: (-result.reward, result.index))
    print(f"\n  {rule}")
    width = 9 * len(results[0].ensemble.members or ()) - 1
    print(f"    {'rank':>4} {'reward':>8} {'disagreement':>13}  {'members':<{width}}  candidate")
    for rank, result in enumerate(ranked, start=1):
        members = " ".join(f"{member:8.3f}" for member in result.ensemble.members or ())
        text = textwrap.shorten(candidates[result.index], 56, placeholder=" …")
        print(f"    {rank:>4} {result.reward:>8.3f} {result.ensemble.disagreement:>13.3f}  {members}  {text}")


def show(client: Client, model: str, prompt: str) -> str:
    """Scores the prompt's candidates under every rule; returns the model's version."""
    candidates = CANDIDATES[prompt]
    print(f"\n{model}: {prompt}")
    for rule, aggregate in RULES:
        scores = client.score(
            prompts=prompt, responses=candidates, model=model, aggregate=aggregate, include=["members"]
        )
        print_ranking(rule, scores.results, candidates)
    return scores.model_version


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Rank a few candidates with a running server.")
    parser.add_argument("--server", type=Path, default=Path("target/release/karat"))
    parser.add_argument("--models", type=Path, default=Path("models"))
    arguments = parser.parse_args()
    with ServerProcess(arguments.server, arguments.models) as server, Client(server.url) as client:
        for prompt in CANDIDATES:
            composite = show(client, "assistant", prompt)
        # The composite shows only the mean of the five heads; here they are one by one.
        heads = show(client, "harmless", next(iter(CANDIDATES)))
    print(
        f"\nassistant (version {composite}): members are the log-sigmoid of relevance and of "
        f"harmlessness, each about its reference.\nharmless (version {heads}): members are five "
        "weak heads; their cards in models/ say how weak.\nDisagreement is the members' "
        "population standard deviation. The server drained and exited with 0."
    )


if __name__ == "__main__":
    main()
