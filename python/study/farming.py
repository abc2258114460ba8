"""Farming a process reward: a solution is padded with one correct step, again and again.

The step scores are those of a real model, the grammar tagger: a step's score is
the geometric mean, over its tokens, of the probability that the token needs no
correction. So a "correct step" is a correct sentence, whatever its arithmetic.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from karat_client import Client, transforms
from karat_client.rules import Rule, rule
from tools.onnx_file import write_model
from tools.onnx_graph import GraphBuilder

MODEL = "grammar-steps"
MARK = "."
MARK_ID = 119
OUTPUT = "step_log_odds"
SPECIAL_IDS = (101, 102)
KEEP_LABEL = 0
# The paper's threshold is not published; this one is ours. Correct sentences
# score above it.
ETA = 0.98
# What a padded faulty solution must be ahead of the correct one to count as preferred.
MARGIN = 0.01
REPEATS = (0, 1, 2, 4, 8, 16)
TRANSFORMS: dict[str, list[Rule]] = {
    "raw": [],
    "clip": [rule("step_clip", eta=ETA)],
    "delta": [transforms.delta()],
    "clip_then_delta": [rule("clip_then_delta", eta=ETA)],
}

MANIFEST = f"""\
description = "How sure a grammar checker is that no token of a step needs correction"
license = "Apache-2.0"
head = {{ process = {{ read = "sigmoid", reduction = "min" }} }}
aggregate = "mean"
providers = ["cpu"]

[graph]
file = "model.onnx"
output = "{OUTPUT}"

[text]
tokenizer = "tokenizer.json"
render = {{ jinja = "{{{{ messages[-1].content }}}}" }}
special_tokens = true
step_mark = "{MARK}"
max_tokens = 384
truncation = "refuse"
"""


@dataclass(frozen=True)
class Solution:
    """Steps of a worked solution, one of which has a second, faulty wording."""

    steps: tuple[str, ...]
    faulty_step: int
    fault: str

    def correct(self) -> list[str]:
        """The steps without the fault."""
        return list(self.steps)

    def faulty(self, repeats: int) -> list[str]:
        """The faulty wording, with its correct first step repeated that many times."""
        steps = list(self.steps)
        steps[self.faulty_step] = self.fault
        return steps[:1] * (1 + repeats) + steps[1:]


SOLUTIONS = (
    Solution(
        (
            "A bag holds three red balls and four blue balls",
            "We add three and four to get seven balls",
            "So the bag holds seven balls",
        ),
        1,
        "We adds three and four for get seven ball",
    ),
    Solution(
        (
            "The train travels sixty miles in one hour",
            "In three hours it travels three times as far",
            "Three times sixty is one hundred and eighty",
            "The train travels one hundred and eighty miles",
        ),
        2,
        "Three time sixty equal to one hundred and eighties",
    ),
    Solution(
        (
            "Anna has twelve apples and gives away five of them",
            "We subtract five from twelve",
            "Twelve minus five is seven",
            "She has seven apples left",
        ),
        3,
        "She have seven apple leave",
    ),
    Solution(
        (
            "A rectangle is eight feet long and five feet wide",
            "Its area is its length times its width",
            "Eight times five is forty",
            "The area is forty square feet",
        ),
        1,
        "It area are equal of it length time it width",
    ),
    Solution(
        (
            "Every box contains six eggs",
            "We need thirty eggs for the party",
            "Thirty divided by six is five",
            "We have to buy five boxes",
        ),
        3,
        "We has to bought five box",
    ),
    Solution(
        (
            "The shirt costs twenty dollars before the discount",
            "The discount is one quarter of the price",
            "One quarter of twenty is five",
            "The shirt costs fifteen dollars after the discount",
        ),
        1,
        "The discount is one quarters of a the price",
    ),
    Solution(
        (
            "The sum of two numbers is ten",
            "One of the numbers is twice the other number plus one",
            "Trying three gives seven for the larger number",
            "Three and seven make ten as required",
        ),
        2,
        "To trying three gives we seven for a larger numbers",
    ),
    Solution(
        (
            "A clock strikes once every hour",
            "There are twenty four hours in a day",
            "It therefore strikes twenty four times a day",
        ),
        1,
        "There is twenty four hour in an day",
    ),
)


def write_process_model(grammar: Path, folder: Path) -> None:
    """Writes a process reward model into `folder`, made of the tagger in `grammar`."""
    graph = onnx.load(grammar / "model.onnx")
    (logits,) = graph.graph.output
    _append_step_scores(graph, logits.name)
    write_model(graph, folder / "model.onnx")
    shutil.copyfile(grammar / "tokenizer.json", folder / "tokenizer.json")
    (folder / "model.toml").write_text(MANIFEST)


def _append_step_scores(model: onnx.ModelProto, logits: str) -> None:
    """Adds `step_log_odds` [batch, sequence]: at a mark, those of the step that it ends."""
    graph, b = model.graph, GraphBuilder(prefix="steps.")

    def cast(value: str) -> str:
        return b.add("Cast", value, to=TensorProto.FLOAT)

    ids, mask = (tensor.name for tensor in graph.input[:2])
    sequence, last = b.constant("axis_1", np.array([1], np.int64)), b.constant("axis_2", np.array([2], np.int64))
    one = b.constant("one", np.float32(1.0))
    keep = b.add("Gather", b.add("LogSoftmax", logits, axis=-1), b.constant("keep", np.int64(KEEP_LABEL)), axis=2)
    marks = cast(b.add("Equal", ids, b.constant("mark", np.int64(MARK_ID))))
    step = b.add("CumSum", marks, b.constant("along", np.int64(1)), exclusive=1)
    text = cast(mask)
    for special in SPECIAL_IDS:
        other = b.add("Not", b.add("Equal", ids, b.constant(f"special_{special}", np.int64(special))))
        text = b.add("Mul", text, cast(other))
    rows, columns = b.add("Unsqueeze", step, last), b.add("Unsqueeze", step, sequence)
    same = cast(b.add("Equal", rows, columns))
    of_step = b.add("Mul", same, b.add("Unsqueeze", text, sequence))
    total = b.add("MatMul", of_step, b.add("Unsqueeze", keep, last))
    tokens = b.add("ReduceSum", of_step, last, keepdims=1)
    mean = b.add("Div", total, b.add("Max", tokens, one))
    probability = b.add("Exp", b.add("Squeeze", mean, last))
    least, most = b.constant("least", np.float32(1e-6)), b.constant("most", np.float32(1 - 1e-6))
    probability = b.add("Clip", probability, least, most)
    wrong = b.add("Sub", one, probability)
    b.add("Sub", b.add("Log", probability), b.add("Log", wrong), output=OUTPUT)
    graph.node.extend(b.nodes)
    graph.initializer.extend(b.initializers.values())
    # Under the input's own names, so that the server sees which axis is the sequence.
    axes = [axis.dim_param for axis in graph.input[0].type.tensor_type.shape.dim]
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, axes))
    onnx.checker.check_model(model)


def run(client: Client) -> dict[str, Any]:
    """The reward of whole solutions by each transform: correct ones, and padded faulty ones."""
    report: dict[str, Any] = {
        "model": "the grammar tagger as a process reward",
        "eta": ETA,
        "solutions": len(SOLUTIONS),
        "repeats": list(REPEATS),
        "transforms": {},
    }
    for name, rules in TRANSFORMS.items():
        correct = _totals(client, [s.correct() for s in SOLUTIONS], rules)
        padded = np.array([_totals(client, [s.faulty(n) for s in SOLUTIONS], rules) for n in REPEATS])
        report["transforms"][name] = {
            "correct": round(float(correct.mean()), 4),
            "padded": [round(float(value), 4) for value in padded.mean(axis=1)],
            "preferred": [round(float(value), 4) for value in (padded > correct + MARGIN).mean(axis=1)],
        }
    right = client.process("", [s.correct() for s in SOLUTIONS], model=MODEL, transforms=[]).results
    wrong = client.process("", [s.faulty(0) for s in SOLUTIONS], model=MODEL, transforms=[]).results
    faulty = [result.scores[s.faulty_step] for result, s in zip(wrong, SOLUTIONS, strict=True)]
    report["lowest_correct_step"] = round(min(min(result.scores) for result in right), 4)
    report["faulty_steps"] = [round(float(value), 4) for value in sorted(faulty)]
    return report


def _totals(client: Client, solutions: list[list[str]], rules: list[Rule]) -> np.ndarray:
    scored = client.process("", solutions, model=MODEL, transforms=rules)
    return np.array([sum(result.rewards) for result in scored.results])
