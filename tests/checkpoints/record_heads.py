"""Small random checkpoints of the heads in use, and what their arithmetic makes of Transformers' states.

`python tests/checkpoints/record_heads.py` needs what `record.py` needs. The classes here aren't in Transformers: each
head is written from the description of its authors, on a trunk that is. Weights are stored as bfloat16 and computed with
in float32, eagerly. Recorded with torch 2.15.0 and transformers 5.24.0 on a CPU.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from record import CLASSES, CONVERSATIONS, SMALL, SPECIAL, TEMPLATE, as_internlm2
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import nn

HERE = Path(__file__).parent
HIDDEN = SMALL["hidden_size"]
Turns = list[dict[str, str]]

LLAMA3_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
LLAMA3_TOKENS = ("<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>")
GATE = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"


class Gating(nn.Module):
    """Objectives, and a network over the prompt that weighs them: ArmoRM, and with quantiles QRM."""

    def __init__(self, objectives: int, inner: int, quantiles: int = 1) -> None:
        super().__init__()
        self.quantiles, self.temperature = quantiles, 2.0
        self.regression_layer = nn.Linear(HIDDEN, objectives * quantiles, bias=False)
        matrix = torch.eye(objectives) + 0.3 * torch.randn(objectives, objectives)
        self.reward_transform_matrix = nn.Parameter(matrix)
        layers: list[nn.Module] = []
        width = HIDDEN
        for _ in range(2):
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
        """The reward, and the objectives that the authors report."""
        rewards = self.regression_layer(state).reshape(-1, self.quantiles).mean(dim=-1)
        inner = prompt[None]
        for number, layer in enumerate(self.network):
            inner = layer(inner)
            if self.quantiles == 1 and number + 1 < len(self.network):
                inner = torch.relu(inner)
        weights = torch.softmax(inner[0] / self.temperature, dim=-1) * self.gating["logit_scale"][0]
        transformed = rewards @ self.reward_transform_matrix
        reported = rewards if self.quantiles == 1 else transformed
        return {"reward": float(weights @ transformed), "objectives": reported.tolist()}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Under the names of the authors' class."""
        return {key.replace("network.", "gating.layers."): value for key, value in self.state_dict().items()}


class Weighed(nn.Module):
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


PLAIN = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{{ '\n' if not loop.last }}{% endfor %}"
PROMPT = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{{ '\n' }}{% endfor %}"


def solved(end: str) -> tuple[list[tuple[str, str]], ...]:
    """Solutions in steps, each ended."""
    solutions = (
        ("What is 3 + 4 - 2?", ["3 + 4 = 7.", "7 - 2 = 5.", "The answer is 5."]),
        ("Two apples and three more?", ["2 + 3 = 6.", "So 6."]),
        ("Ein Käse?", ["価格は百円です。"]),
    )
    return tuple(
        [("user", question), ("assistant", "".join(step + end for step in steps))] for question, steps in solutions
    )


def text(**keys: Any) -> str:
    """The tables of a manifest that read a checkpoint's own folder; strings as TOML writes them."""
    output = json.dumps(keys.pop("output", "logits"))
    lines = [f"{key} = {value if key == 'render' else json.dumps(value, ensure_ascii=False)}" for key, value in keys.items()]
    return f'[graph]\ncheckpoint = "."\noutput = {output}\n[text]\nmax_tokens = 256\n' + "\n".join(lines) + "\n"


TWO_TOKENS = 'head = { process = { read = { two_token = { positive = "+", negative = "-" } }, reduction = "min" } }\n'
TWO_CLASSES = 'head = { process = { read = { two_class = { positive = 1 } }, reduction = "min" } }\n'
# A template loses a line break at its end, unless it writes it.
RERANKER = (
    '{ jinja = "<s>Judge.\\n<Instruct>: {{ messages[2].content }}\\n<Query>: {{ messages[0].content }}\\n'
    "<Document>: {{ messages[1].content }}</s><think>\\n\\n</think>{{ '\\\\n\\\\n' }}\" }"
)
LINES = {
    # A full stop and a line break are one token, unless steps are tokenised apart.
    "merges": ((".", "Ċ"), ("7", ".Ċ")),
    "dialogues": solved("\n"),
}
LM = named("lm_head", linear(264))
GATED = {"gating_temperature": 2, "gating_hidden_dim": 8, "gating_n_hidden": 2, "num_objectives": 3}
BEAVER = {"score_dim": 1, "bias": True, "do_normalize": True, "normalizer_type": None, "mean": [0.75], "var": [6.25]}
MODELS = (
    Model(
        "internlm2-reward",
        "internlm2",
        "InternLM2ForRewardModel",
        named("v_head", linear()),
        internlm2,
        written={"bias": False, "reward_token_id": 260, "pad_token_id": 2},
        tokens=("[UNUSED_TOKEN_130]",),
        dialogues=(*CONVERSATIONS, [("user", "Hi"), ("assistant", "Hello")]),
    ),
    Model(
        "armorm",
        "llama",
        "LlamaForRewardModelWithGating",
        lambda: Gating(3, 8),
        gated,
        written=GATED,
        tokens=LLAMA3_TOKENS,
        template=LLAMA3_TEMPLATE,
    ),
    Model(
        "qrm",
        "llama",
        "LlamaForRewardModelWithGating",
        lambda: Gating(3, 8, quantiles=5),
        gated,
        written={**GATED, "num_quantiles": 5, "gating_newtork": True, "loss": "quantile_regression"},
        tokens=LLAMA3_TOKENS,
        template=LLAMA3_TEMPLATE,
    ),
    Model(
        "urm",
        "llama",
        "LlamaForSequenceClassificationWithNormal_Weights",
        lambda: Weighed(5),
        weighed,
        written={"id2label": {str(row): f"LABEL_{row}" for row in range(10)}},
    ),
    Model(
        "inf-orm",
        "llama",
        "INFORMForSequenceClassification",
        named("score", lambda: nn.Sequential(nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))),
        inform,
        config={"pad_token_id": 2},
    ),
    Model("ultrarm", "llama", "LlamaRewardModel", named("regression_head", linear()), matrix("regression_head")),
    Model("eurus", "mistral", "EurusRewardModel", named("regression_head", linear()), matrix("regression_head")),
    Model(
        "llama-classification",
        "llama",
        "LlamaForClassification",
        named("classification_head", linear()),
        matrix("classification_head"),
        written={"classification_out_size": 1},
    ),
    Model(
        "beaver-reward",
        "llama",
        "LlamaForScore",
        named("score_head", linear(bias=True)),
        beaver("reward"),
        written={**BEAVER, "score_type": "reward"},
    ),
    Model(
        "beaver-cost",
        "llama",
        "LlamaForScore",
        named("score_head", linear(bias=True)),
        beaver("cost"),
        written={**BEAVER, "score_type": "cost"},
    ),
    Model(
        "math-shepherd",
        "mistral",
        "MistralForCausalLM",
        LM,
        math_shepherd,
        tokens=("ки",),
        template=PLAIN,
        manifest=TWO_TOKENS + text(render='"chat_template"', step_mark="ки", step_end=" ки\n"),
        dialogues=solved(" ки\n"),
    ),
    Model(
        "rlhflow-prm",
        "llama",
        "LlamaForCausalLM",
        LM,
        rlhflow,
        tokens=LLAMA3_TOKENS,
        template=LLAMA3_TEMPLATE,
        # A line break at the end of a header is one token, as Llama 3's tokenizer has it.
        merges=(("Ċ", "Ċ"),),
        manifest=TWO_TOKENS + text(render='"chat_template"', step_end="\n\n").replace(
            "[text]\n", '[text]\nsteps = { turns = "+" }\n'
        ),
        dialogues=(*solved("\n\n"), [("system", "Be brief."), *solved("\n\n")[0]]),
    ),
    Model(
        "trl-prm",
        "qwen2",
        "Qwen2ForTokenClassification",
        named("score", linear(2, bias=True)),
        trl,
        written={"id2label": {"0": "LABEL_0", "1": "LABEL_1"}},
        template=PROMPT,
        manifest=TWO_CLASSES
        + text(
            output="scores",
            render="{ jinja = \"{{ bos_token }}{{ messages[0].content }}\\n{{ messages[1].content }}\" }",
            steps="apart",
            step_end="\n",
        ),
        **LINES,
    ),
    Model(
        "skywork-o1-prm",
        "qwen2",
        "Qwen2ForPrmModel",
        named("v_head.summary", linear(bias=True)),
        skywork,
        template=PROMPT,
        **LINES,
    ),
    Model(
        "qwen3-reranker",
        "qwen3",
        "Qwen3ForCausalLM",
        LM,
        reranker,
        tokens=("yes", "no"),
        manifest='head = { judge = { single = { question = "Find answers.", yes = ["yes"], no = ["no"] } } }\n'
        + text(render=RERANKER),
        dialogues=(CONVERSATIONS[0], CONVERSATIONS[1], CONVERSATIONS[3]),
    ),
    Model(
        "nemotron-reward",
        "llama",
        "LlamaForCausalLM",
        LM,
        nemotron,
        tokens=LLAMA3_TOKENS,
        template=LLAMA3_TEMPLATE,
        manifest='head = { logit = { token = "!" } }\n' + text(render='"chat_template"'),
    ),
)


def tokenizer(model: Model) -> Tokenizer:
    """A byte-level tokenizer: the special tokens, the 256 bytes, then the model's own."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merged = ["".join(pair) for pair in model.merges]
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *letters, *merged])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=list(model.merges)))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(SPECIAL))
    made.add_tokens([AddedToken(token, normalized=False) for token in model.tokens])
    return made


def write(model: Model, trunk: nn.Module, top: nn.Module, folder: Path) -> None:
    """Writes the checkpoint as its trainer does."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tensors = {f"model.{key}": value for key, value in trunk.state_dict().items()}
    if model.model_type == "internlm2":
        tensors = as_internlm2(tensors)
    tensors |= top.tensors() if isinstance(top, Gating) else top.state_dict()
    stored = {
        key: (value.to(torch.bfloat16) if value.is_floating_point() else value).contiguous()
        for key, value in tensors.items()
    }
    save_file(stored, folder / "model.safetensors")
    config = trunk.config.to_dict() | {
        "architectures": [model.architecture],
        "model_type": model.model_type,
        "id2label": {"0": "LABEL_0"},
        "dtype": "bfloat16",
        "auto_map": {"AutoModel": f"modeling.{model.architecture}"},
        **model.written,
    }
    config = {key: value for key, value in config.items() if value is not None or key == "sliding_window"}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    tokenizer(model).save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "chat_template": model.template}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    if model.manifest is not None:
        (folder / "model.toml").write_text(model.manifest)


def record(model: Model) -> None:
    """Makes one checkpoint and records the scores of every dialogue."""
    torch.manual_seed(len(model.name) * 1000 + sum(map(ord, model.name)))
    kind = CLASSES[model.model_type]
    configuration = getattr(transformers, f"{kind}Config")(**SMALL | {"sliding_window": None} | model.config)
    configuration._attn_implementation = "eager"
    trunk = getattr(transformers, f"{kind}Model")(configuration).eval()
    top = model.head().eval()
    with torch.no_grad():
        for name, parameter in [*trunk.named_parameters(), *top.named_parameters()]:
            if "norm" in name or name.endswith("bias"):
                parameter.add_(torch.randn_like(parameter) * 0.2)
    folder = HERE / model.name
    write(model, trunk, top, folder)
    for module in (trunk, top):
        rounded = {key: value.to(torch.bfloat16).to(value.dtype) for key, value in module.state_dict().items()}
        module.load_state_dict(rounded)
    encoder = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    reference = Reference(model, trunk, top, encoder)
    cases = []
    for turns in model.dialogues:
        messages = [{"role": role, "content": content} for role, content in turns]
        with torch.no_grad():
            cases.append({"messages": messages, **model.score(reference, messages)})
    expected = {"tolerance": 1e-4, "cases": cases}
    (folder / "expected.json").write_text(json.dumps(expected, ensure_ascii=False) + "\n")
    print(model.name, [case.get("reward", case.get("steps")) for case in cases])


def main() -> None:
    """Writes every checkpoint beside this file."""
    for model in MODELS:
        record(model)


if __name__ == "__main__":
    main()
