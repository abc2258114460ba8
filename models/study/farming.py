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
from onnx import TensorProto, helper, numpy_helper

from models.tools.onnx_file import write_model
from models.tools.server_process import Client

MODEL = "grammar-steps"
MARK = "."
MARK_ID = 119
SPECIAL_IDS = (101, 102)
KEEP_LABEL = 0
# The paper's threshold is not published; this one is ours. Correct sentences
# score above it.
ETA = 0.98
# What a padded faulty solution must be ahead of the correct one to count as preferred.
MARGIN = 0.01
REPEATS = (0, 1, 2, 4, 8, 16)
TRANSFORMS: dict[str, list[Any]] = {
    "raw": [],
    "clip": [{"step_clip": {"eta": ETA}}],
    "delta": ["delta"],
    "clip_then_delta": [{"clip_then_delta": {"eta": ETA}}],
}

MANIFEST = f"""\
description = "How sure a grammar checker is that no token of a step needs correction"
license = "Apache-2.0"
head = {{ process = {{ read = "sigmoid", reduction = "min" }} }}
aggregate = "mean"
providers = ["cpu"]

[graph]
file = "model.onnx"
output = "step_log_odds"

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
    graph = model.graph
    count = 0

    def constant(value: np.ndarray | np.generic) -> str:
        name = f"steps.constant_{len(graph.initializer)}"
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(op: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        nonlocal count
        count += 1
        name = output or f"steps.{op}_{count}"
        graph.node.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def cast(value: str) -> str:
        return node("Cast", value, to=TensorProto.FLOAT)

    ids = graph.input[0].name
    last_axis = constant(np.array([2], np.int64))
    keep = node(
        "Gather", node("LogSoftmax", logits, axis=-1), constant(np.int64(KEEP_LABEL)), axis=2
    )
    marks = cast(node("Equal", ids, constant(np.int64(MARK_ID))))
    step = node("CumSum", marks, constant(np.int64(1)), exclusive=1)
    text = cast(graph.input[1].name)
    for special in SPECIAL_IDS:
        other = node("Not", node("Equal", ids, constant(np.int64(special))))
        text = node("Mul", text, cast(other))
    rows = node("Unsqueeze", step, last_axis)
    columns = node("Unsqueeze", step, constant(np.array([1], np.int64)))
    same = cast(node("Equal", rows, columns))
    of_step = node("Mul", same, node("Unsqueeze", text, constant(np.array([1], np.int64))))
    total = node("MatMul", of_step, node("Unsqueeze", keep, last_axis))
    tokens = node("ReduceSum", of_step, last_axis, keepdims=1)
    mean = node("Div", total, node("Max", tokens, constant(np.float32(1.0))))
    probability = node("Exp", node("Squeeze", mean, last_axis))
    probability = node(
        "Clip", probability, constant(np.float32(1e-6)), constant(np.float32(1 - 1e-6))
    )
    wrong = node("Sub", constant(np.float32(1.0)), probability)
    node("Sub", node("Log", probability), node("Log", wrong), output="step_log_odds")
    # Under the input's own names, so that the server sees which axis is the sequence.
    axes = [axis.dim_param for axis in graph.input[0].type.tensor_type.shape.dim]
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("step_log_odds", TensorProto.FLOAT, axes))
    onnx.checker.check_model(model)


def run(url: str) -> dict[str, Any]:
    """The reward of whole solutions by each transform: correct ones, and padded faulty ones."""
    client = Client(url)
    report: dict[str, Any] = {
        "model": "the grammar tagger as a process reward",
        "eta": ETA,
        "solutions": len(SOLUTIONS),
        "repeats": list(REPEATS),
        "transforms": {},
    }
    for name, transforms in TRANSFORMS.items():
        correct = _totals(client, [s.correct() for s in SOLUTIONS], transforms)
        padded = np.array(
            [_totals(client, [s.faulty(n) for s in SOLUTIONS], transforms) for n in REPEATS]
        )
        report["transforms"][name] = {
            "correct": round(float(correct.mean()), 4),
            "padded": [round(float(value), 4) for value in padded.mean(axis=1)],
            "preferred": [
                round(float(value), 4) for value in (padded > correct + MARGIN).mean(axis=1)
            ],
        }
    replies = [_process(client, [s.correct() for s in SOLUTIONS], [])]
    replies.append(_process(client, [s.faulty(0) for s in SOLUTIONS], []))
    scores = [np.concatenate([r["scores"] for r in reply]) for reply in replies]
    faulty = [r["scores"][s.faulty_step] for r, s in zip(replies[1], SOLUTIONS, strict=True)]
    report["lowest_correct_step"] = round(float(scores[0].min()), 4)
    report["faulty_steps"] = [round(float(value), 4) for value in sorted(faulty)]
    return report


def _process(client: Client, solutions: list[list[str]], transforms: list[Any]) -> list[Any]:
    reply = client.post(
        "/v1/process",
        {
            "model": MODEL,
            "inputs": [{"prompt": "", "steps": steps} for steps in solutions],
            "transforms": transforms,
        },
    )
    return reply["results"]


def _totals(client: Client, solutions: list[list[str]], transforms: list[Any]) -> np.ndarray:
    return np.array([sum(r["rewards"]) for r in _process(client, solutions, transforms)])
