"""Small random checkpoints of the heads in use, and what their arithmetic makes of Transformers' states.

`python -m tests.checkpoints.record_heads` needs what `record.py` needs. The classes here aren't in Transformers: what
they compute stands in `heads.py`. Weights are stored as bfloat16 and computed with in float32, eagerly.
Recorded with torch 2.15.0 and transformers 5.24.0 on a CPU.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import nn

from tests.checkpoints.heads import (
    HIDDEN,
    PAIR,
    Gating,
    Model,
    Reference,
    Weighed,
    beaver,
    gated,
    inform,
    internlm2,
    linear,
    math_shepherd,
    matrix,
    named,
    nemotron,
    preference,
    reranker,
    rlhflow,
    skywork,
    trl,
    weighed,
)
from tests.checkpoints.record import CLASSES, as_internlm2
from tests.checkpoints.small import CONVERSATIONS, SMALL, SPECIAL

HERE = Path(__file__).parent
LLAMA3_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
LLAMA3_TOKENS = ("<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>")
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
    lines = [
        f"{key} = {value if key == 'render' else json.dumps(value, ensure_ascii=False)}" for key, value in keys.items()
    ]
    return f'[graph]\ncheckpoint = "."\noutput = {output}\n[text]\nmax_tokens = 256\n' + "\n".join(lines) + "\n"


TWO_TOKENS = 'head = { process = { read = { two_token = { positive = "+", negative = "-" } }, reduction = "min" } }\n'
TWO_CLASSES = 'head = { process = { read = { two_class = { positive = 1 } }, reduction = "min" } }\n'
# A template loses a line break at its end, unless it writes it.
RERANKER = (
    '{ jinja = "<s>Judge.\\n<Instruct>: {{ messages[2].content }}\\n<Query>: {{ messages[0].content }}\\n'
    "<Document>: {{ messages[1].content }}</s><think>\\n\\n</think>{{ '\\\\n\\\\n' }}\" }"
)
LINES: dict[str, Any] = {
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
        manifest=TWO_TOKENS
        + text(render='"chat_template"', step_end="\n\n").replace("[text]\n", '[text]\nsteps = { turns = "+" }\n'),
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
            render='{ jinja = "{{ bos_token }}{{ messages[0].content }}\\n{{ messages[1].content }}" }',
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
    Model(
        "pair-preference",
        "llama",
        "LlamaForCausalLM",
        LM,
        preference,
        tokens=LLAMA3_TOKENS,
        # Whether or not the assistant is to speak, nothing comes behind the turn.
        template=LLAMA3_TEMPLATE.split("{% if")[0],
        manifest="head = { judge = { pair = { question = "
        + json.dumps(PAIR)
        + ', first = ["A"], second = ["B"] } } }\n'
        + text(render='"chat_template"'),
        dialogues=(
            [("user", "Why is the sky blue?"), ("first", "It scatters."), ("second", "Because it is.")],
            [("user", "1 + 1?"), ("first", "3"), ("second", "It is 2.")],
        ),
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


def write(model: Model, trunk: nn.Module, top: nn.Module, folder: Path, file: dict[str, Any] | None = None) -> None:
    """Writes the checkpoint as its trainer does, with a configuration's file as it is where there is one."""
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
    config = file or {key: value for key, value in config.items() if value is not None or key == "sliding_window"}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    tokenizer(model).save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "chat_template": model.template}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    if model.manifest is not None:
        (folder / "model.toml").write_text(model.manifest)


def make(model: Model, folder: Path, file: dict[str, Any] | None = None) -> Reference:
    """Makes one checkpoint, of a configuration's file where there is one, and its authors' view of it."""
    torch.manual_seed(len(model.name) * 1000 + sum(map(ord, model.name)))
    kind = CLASSES[model.model_type]
    made = getattr(transformers, f"{kind}Config")
    if file is None:
        configuration = made(**SMALL | {"sliding_window": None} | model.config)
    else:
        configuration = made.from_dict(file | {"initializer_range": SMALL["initializer_range"]})
    configuration._attn_implementation = "eager"
    trunk = getattr(transformers, f"{kind}Model")(configuration).eval()
    top = model.head().eval()
    with torch.no_grad():
        for name, parameter in [*trunk.named_parameters(), *top.named_parameters()]:
            if "norm" in name or name.endswith("bias"):
                parameter.add_(torch.randn_like(parameter) * 0.2)
    write(model, trunk, top, folder, file)
    for module in (trunk, top):
        rounded = {key: value.to(torch.bfloat16).to(value.dtype) for key, value in module.state_dict().items()}
        module.load_state_dict(rounded)
    special = json.loads((folder / "tokenizer_config.json").read_text())
    encoder = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **special)
    return Reference(model, trunk, top, encoder)


def record(model: Model) -> None:
    """Makes one checkpoint and records the scores of every dialogue."""
    folder = HERE / model.name
    reference = make(model, folder)
    cases = []
    for turns in model.dialogues:
        messages = [{"role": role, "content": content} for role, content in turns]
        with torch.no_grad():
            cases.append({"messages": messages, **model.score(reference, messages)})
    for beside in ("normalised", "quantiles"):
        found = [case.pop(beside) for case in cases if beside in case]
        if found:
            (folder / f"{beside}.json").write_text(json.dumps(found, indent=1) + "\n")
    expected = {"tolerance": 1e-4, "cases": cases}
    # Two answers are no dialogue, and are asked about on a route of their own.
    name = "pairs.json" if model.dialogues[0][-1][0] == "second" else "expected.json"
    (folder / name).write_text(json.dumps(expected, ensure_ascii=False) + "\n")
    print(model.name, [case.get("reward", case.get("steps")) for case in cases])


def main() -> None:
    """Writes every checkpoint, or those that are named, beside this file."""
    for model in MODELS:
        if model.name in (sys.argv[1:] or [model.name]):
            record(model)


if __name__ == "__main__":
    main()
