"""The arithmetic of the heads in use, from the descriptions of their authors, on a trunk of Transformers.

Each function makes of a dialogue what a checkpoint's own code makes of it: its tokens, and a reward or the
probabilities of its steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from tests.checkpoints.small import CONVERSATIONS, SMALL, TEMPLATE

HIDDEN = SMALL["hidden_size"]
Turns = list[dict[str, str]]

GATE = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"


class Gating(nn.Module):  # type: ignore[misc]
    """Objectives, and a network over the prompt that weighs them: ArmoRM, and with quantiles QRM."""

    def __init__(
        self, objectives: int, inner: int, quantiles: int = 1, layers_within: int = 2, temperature: float = 2.0
    ) -> None:
        super().__init__()
        self.quantiles, self.temperature = quantiles, temperature
        self.regression_layer = nn.Linear(HIDDEN, objectives * quantiles, bias=False)
        matrix = torch.eye(objectives) + 0.3 * torch.randn(objectives, objectives)
        self.reward_transform_matrix = nn.Parameter(matrix)
        layers: list[nn.Module] = []
        width = HIDDEN
        for _ in range(layers_within):
            layers.append(nn.Linear(width, inner, bias=quantiles == 1))
            if quantiles > 1:
                layers += [nn.ReLU(), nn.BatchNorm1d(inner)]
            width = inner
        layers.append(nn.Linear(width, objectives))
        self.gating = nn.ParameterDict({"logit_scale": torch.tensor([1.5])})
        self.network = nn.ModuleList(layers)
        for layer in layers:
            if isinstance(layer, nn.BatchNorm1d):
                layer.running_mean.normal_()
                layer.running_var.uniform_(0.5, 2.0)
                nn.init.normal_(layer.weight)
                nn.init.normal_(layer.bias)

    def score(self, state: torch.Tensor, prompt: torch.Tensor) -> dict[str, Any]:
        """The reward, and the objectives and the quantiles of the reward that the authors report."""
        quantiles = self.regression_layer(state).reshape(-1, self.quantiles)
        rewards = quantiles.mean(dim=-1)
        inner = prompt[None]
        for number, layer in enumerate(self.network):
            inner = layer(inner)
            if self.quantiles == 1 and number + 1 < len(self.network):
                inner = torch.relu(inner)
        weights = torch.softmax(inner[0] / self.temperature, dim=-1) * self.gating["logit_scale"][0]
        transformed = rewards @ self.reward_transform_matrix
        reported = rewards if self.quantiles == 1 else transformed
        found = {"reward": float(weights @ transformed), "objectives": reported.tolist()}
        if self.quantiles > 1:
            found["quantiles"] = (weights @ (quantiles.T @ self.reward_transform_matrix).T).tolist()
        return found

    def tensors(self) -> dict[str, torch.Tensor]:
        """Under the names of the authors' class."""
        return {key.replace("network.", "gating.layers."): value for key, value in self.state_dict().items()}


class Weighed(nn.Module):  # type: ignore[misc]
    """URM: attributes with their spread, and a network that weighs them."""

    def __init__(self, attributes: int) -> None:
        super().__init__()
        self.score = nn.Linear(HIDDEN, 2 * attributes, bias=False)
        network = [nn.Linear(HIDDEN, 8), nn.SELU(), nn.Linear(8, 8), nn.SELU(), nn.Linear(8, attributes)]
        self.weights = nn.ModuleDict({"fc": nn.Sequential(*network)})

    def reward(self, state: torch.Tensor) -> dict[str, Any]:
        """The means' weighted sum."""
        attributes = self.score(state)[0::2]
        return {"reward": float(self.weights["fc"](state) @ attributes), "objectives": attributes.tolist()}


def named(name: str, layer: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """A head whose tensors begin with a name."""

    def make() -> nn.Module:
        top: nn.Module = nn.Module()
        *folders, last = name.split(".")
        inner = top
        for part in folders:
            below = nn.Module()
            setattr(inner, part, below)
            inner = below
        setattr(inner, last, layer())
        return top

    return make


def linear(rows: int = 1, bias: bool = False) -> Callable[[], nn.Module]:
    """One matrix."""
    return lambda: nn.Linear(HIDDEN, rows, bias=bias)


@dataclass
class Reference:
    """A checkpoint as its authors' code sees it."""

    small: Model
    trunk: nn.Module
    top: nn.Module
    encoder: Any

    def ids(self, text: str) -> list[int]:
        """The tokens of a text, none added."""
        return list(self.encoder(text, add_special_tokens=False)["input_ids"])

    def rendered(self, turns: Turns, **arguments: Any) -> list[int]:
        """The tokens of a dialogue in the model's template."""
        return self.ids(self.encoder.apply_chat_template(turns, tokenize=False, **arguments))

    def states(self, ids: list[int]) -> torch.Tensor:
        """The trunk's last state at every token."""
        return self.trunk(input_ids=torch.tensor([ids])).last_hidden_state[0]

    def logits(self, ids: list[int]) -> torch.Tensor:
        """The logits at every token."""
        return self.top.lm_head(self.states(ids))


@dataclass(frozen=True)
class Model:
    """One checkpoint: a class, its head, and how a dialogue becomes its score."""

    name: str
    model_type: str
    architecture: str
    head: Callable[[], nn.Module]
    score: Callable[[Reference, Turns], dict[str, Any]]
    config: dict[str, Any] = field(default_factory=dict)
    # What is written into `config.json` beside the trunk's keys.
    written: dict[str, Any] = field(default_factory=dict)
    tokens: tuple[str, ...] = ()
    merges: tuple[tuple[str, str], ...] = ()
    template: str = TEMPLATE
    # The manifest of models whose folder doesn't say how they are read.
    manifest: str | None = None
    dialogues: tuple[list[tuple[str, str]], ...] = CONVERSATIONS


def matrix(name: str) -> Callable[[Reference, Turns], dict[str, Any]]:
    """A linear head, read at the last token."""

    def score(model: Reference, turns: Turns) -> dict[str, Any]:
        ids = model.rendered(turns)
        return {"tokens": ids, "reward": float(model.top.get_submodule(name)(model.states(ids)[-1])[0])}

    return score


def before_first_pad(ids: list[int], pad: int | None) -> int:
    """The rule of Transformers up to 4.48, of one sample that isn't padded."""
    return (ids.index(pad) - 1) % len(ids) if pad in ids else len(ids) - 1


def gated(model: Reference, turns: Turns) -> dict[str, Any]:
    """The score behind the dialogue, the weights where the last answer begins."""
    ids, mark = model.rendered(turns), model.ids(GATE)
    states = model.states(ids)
    gate = max(at for at in range(len(ids)) if ids[at : at + len(mark)] == mark)
    at = before_first_pad(ids, model.trunk.config.pad_token_id)
    return {"tokens": ids, **model.top.score(states[at], states[gate])}


def weighed(model: Reference, turns: Turns) -> dict[str, Any]:
    """URM, read at the last token."""
    ids = model.rendered(turns)
    return {"tokens": ids, **model.top.reward(model.states(ids)[-1])}


def inform(model: Reference, turns: Turns) -> dict[str, Any]:
    """INF-ORM: before the first padding token, which is the end of the first turn here."""
    ids = model.rendered(turns)
    state = model.states(ids)[before_first_pad(ids, model.trunk.config.pad_token_id)]
    return {"tokens": ids, "reward": float(model.top.score(state)[0])}


def internlm2(model: Reference, turns: Turns) -> dict[str, Any]:
    """The reward token is appended unless it is there."""
    ids, token = model.rendered(turns), model.ids("[UNUSED_TOKEN_130]")
    ids = ids if ids[-1:] == token else ids + token
    return {"tokens": ids, "reward": float(model.top.v_head(model.states(ids)[-1])[0])}


def beaver(kind: str) -> Callable[[Reference, Turns], dict[str, Any]]:
    """safe-rlhf: rewards lose their mean, costs don't."""

    def score(model: Reference, turns: Turns) -> dict[str, Any]:
        ids = model.rendered(turns)
        value = float(model.top.score_head(model.states(ids)[-1])[0])
        mean = 0.75 if kind == "reward" else 0.0
        return {"tokens": ids, "reward": value, "normalised": (value - mean) / (6.25**0.5 + 1e-8)}

    return score


def shares(logits: torch.Tensor, good: int, bad: int) -> list[float]:
    """The probability of one of two tokens, line by line."""
    return torch.softmax(logits[:, [good, bad]].double(), dim=-1)[:, 0].tolist()


def math_shepherd(model: Reference, turns: Turns) -> dict[str, Any]:
    """`+` against `-` at each mark."""
    ids = model.rendered(turns)
    [mark], [good], [bad] = (model.ids(text) for text in ("ки", "+", "-"))
    marks = [at for at, token in enumerate(ids) if token == mark]
    return {"tokens": ids, "steps": shares(model.logits(ids)[marks], good, bad)}


def rlhflow(model: Reference, turns: Turns) -> dict[str, Any]:
    """Each step in a pass of its own, as the authors evaluate: what is predicted three tokens before the end."""
    [good], [bad] = model.ids("+"), model.ids("-")
    *before, question, response = turns
    chat, steps = list(before), []
    for number, step in enumerate(response["content"].removesuffix("\n\n").split("\n\n")):
        content = f"{question['content']} {step}" if number == 0 else step
        chat += [{"role": "user", "content": content}, {"role": "assistant", "content": "+"}]
        steps += shares(model.logits(model.rendered(chat))[-3:-2], good, bad)
    return {"tokens": model.rendered(chat), "steps": steps}


def apart(model: Reference, turns: Turns) -> tuple[list[int], list[int]]:
    """Tokens of a prompt and of steps that were tokenised by themselves, and where the steps end."""
    prompt = model.encoder.apply_chat_template(turns[:-1], tokenize=False)
    ids, ends = model.ids(prompt), []
    for step in turns[-1]["content"].removesuffix("\n").split("\n"):
        ids += [*model.ids(step), *model.ids("\n")]
        ends.append(len(ids) - 1)
    return ids, ends


def trl(model: Reference, turns: Turns) -> dict[str, Any]:
    """Two classes with a bias, the second a good step."""
    ids, ends = apart(model, turns)
    return {"tokens": ids, "steps": shares(model.top.score(model.states(ids)[ends]), 1, 0)}


def skywork(model: Reference, turns: Turns) -> dict[str, Any]:
    """One logit at the end of each step."""
    ids, ends = apart(model, turns)
    steps = torch.sigmoid(model.top.v_head.summary(model.states(ids)[ends]).double())[:, 0].tolist()
    return {"tokens": ids, "steps": steps}


def reranker(model: Reference, turns: Turns) -> dict[str, Any]:
    """The probability of yes against no behind a fixed template."""
    [yes], [no] = model.ids("yes"), model.ids("no")
    query, document = (turn["content"] for turn in turns)
    text = f"<s>Judge.\n<Instruct>: Find answers.\n<Query>: {query}\n<Document>: {document}</s><think>\n\n</think>\n\n"
    ids = model.ids(text)
    return {"tokens": ids, "reward": shares(model.logits(ids)[-1:], yes, no)[0]}


def nemotron(model: Reference, turns: Turns) -> dict[str, Any]:
    """The logit of one token as the first of the next turn."""
    ids = model.rendered(turns, add_generation_prompt=True)
    [token] = model.ids("!")
    return {"tokens": ids, "reward": float(model.logits(ids)[-1, token])}


PAIR = "[CONTEXT] \n\n<turn> user\n {prompt}\n\n\n [RESPONSE A] {first} [RESPONSE B] {second} \n"


def preference(model: Reference, turns: Turns) -> dict[str, Any]:
    """`A` against `B` behind a user's turn that holds both answers, in both orders."""
    prompt, first, second = (turn["content"] for turn in turns)
    [a], [b] = model.ids("A"), model.ids("B")

    def named(first: str, second: str) -> float:
        asked = PAIR.format(prompt=prompt, first=first, second=second)
        return shares(model.logits(model.rendered([{"role": "user", "content": asked}]))[-1:], a, b)[0]

    orders = [named(first, second), 1.0 - named(second, first)]
    return {"orders": orders, "reward": sum(orders) / 2}
