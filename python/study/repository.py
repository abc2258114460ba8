"""What the study serves: one graph with every head, and a composite for each ensemble.

A composite takes five columns of the one graph as its members and standardises
each. Which rule makes one score of them is left to the request. So the trunk
runs once for an answer, whatever is asked about it afterwards.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from study.ensembles import HEADS, Ensemble
from study.trunk import MAX_TOKENS, Features, heads_graph
from tools.harmless import trunk_tokenizer
from tools.onnx_file import write_model
from tools.tokenizer_file import write_tokenizer

ALL_HEADS = "heads"

GRAPH_MANIFEST = """\
description = "Bradley-Terry heads of the over-optimisation study, all on one MiniLM trunk"
license = "CC-BY-NC-4.0"
head = {{ multi = {{ members = {members} }} }}
aggregate = "mean"
providers = ["cpu"]

[graph]
file = "model.onnx"
output = "logits"

[text]
tokenizer = "tokenizer.json"
render = "pair"
max_tokens = {max_tokens}
truncation = "refuse"
"""


def write(folder: Path, cache: Path, features: Features, ensembles: list[Ensemble], others: list[Path]) -> None:
    """Writes the repository; `others` are folders of models that are served beside, by link."""
    weight = np.concatenate([ensemble.weight for ensemble in ensembles], axis=1)
    graph = heads_graph(cache, features, weight, np.zeros(weight.shape[1]))
    write_model(graph, folder / ALL_HEADS / "model.onnx")
    write_tokenizer(trunk_tokenizer(cache), folder / ALL_HEADS / "tokenizer.json")
    manifest = GRAPH_MANIFEST.format(members=weight.shape[1], max_tokens=MAX_TOKENS)
    (folder / ALL_HEADS / "model.toml").write_text(manifest)
    for index, ensemble in enumerate(ensembles):
        text = _composite(ensemble, HEADS * index, weight.shape[1])
        (folder / ensemble.name).mkdir(exist_ok=True)
        (folder / ensemble.name / "model.toml").write_text(text)
    for other in others:
        link = folder / other.name
        link.unlink(missing_ok=True)
        os.symlink(other.resolve(), link)


def _composite(ensemble: Ensemble, first: int, columns: int) -> str:
    """The manifest of one ensemble, whose heads are the columns from `first` on."""
    lines = ['license = "CC-BY-NC-4.0"', 'aggregate = "mean"']
    for member, (mean, deviation) in enumerate(zip(ensemble.means, ensemble.deviations, strict=True)):
        only = [int(column == first + member) for column in range(columns)]
        lines += [
            "",
            "[[ensemble]]",
            f"model = {json.dumps(ALL_HEADS)}",
            f"aggregate = {{ weighted = {{ weights = {only} }} }}",
            f"transforms = [{{ z_score = {{ mean = {mean:.9g}, deviation = {deviation:.9g} }} }}]",
        ]
    return "\n".join(lines) + "\n"
