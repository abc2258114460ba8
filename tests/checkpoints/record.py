"""Small random checkpoints of the real classes, and what Transformers makes of them.

`python -m tests.checkpoints.record [NAME ...]` needs torch, transformers and safetensors, which nothing else here does:
install them into an environment of their own.
Weights are stored as bfloat16 and computed with in float32, eagerly: what a server that widens them has to give.
Recorded with torch 2.15.0 and transformers 5.24.0 on a CPU.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn

from tests.checkpoints.small import CHECKPOINTS, SMALL, SPECIAL, TEMPLATE, Small

HERE = Path(__file__).parent
Messages = list[dict[str, str]]
CLASSES = {
    "llama": "Llama",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "mistral": "Mistral",
    "gemma": "Gemma",
    "gemma2": "Gemma2",
    "phi3": "Phi3",
    "olmo2": "Olmo2",
    "smollm3": "SmolLM3",
    "gemma3_text": "Gemma3Text",
    "gemma3": "Gemma3",
    "olmo3": "Olmo3",
    "glm": "Glm",
    "glm4": "Glm4",
    "gpt_neox": "GPTNeoX",
    "granite": "Granite",
    "nemotron": "Nemotron",
    "mixtral": "Mixtral",
    "qwen3_moe": "Qwen3Moe",
    # Not in Transformers: Llama's arithmetic under names of its own.
    "internlm2": "Llama",
}
INTERNLM2 = {
    "embed_tokens": "tok_embeddings",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
}


@dataclass(frozen=True)
class Reference:
    """What a checkpoint gives for tokens: one reward, or a probability for each step."""

    modules: tuple[nn.Module, ...]
    score: Callable[[list[int]], list[float]]


def tokenizer() -> Tokenizer:
    """A byte-level tokenizer without merges: the special tokens, then the 256 bytes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *letters])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(SPECIAL))
    return made


def head(small: Small, width: int) -> nn.Module:
    """The head, in the arithmetic of its authors."""
    if small.head == "score.mlp":
        return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, small.rows))
    return nn.Linear(width, small.rows, bias=small.head in ("v_head.summary", "out_proj"))


def as_internlm2(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Llama's tensors under InternLM2's names: in each group of heads the queries, then the key, then the value."""
    kv_heads, head_dim = SMALL["num_key_value_heads"], SMALL["head_dim"]
    renamed = {}
    for name, value in tensors.items():
        if "q_proj" in name:
            parts = [value, tensors[name.replace("q_proj", "k_proj")], tensors[name.replace("q_proj", "v_proj")]]
            grouped = [part.reshape(kv_heads, -1, head_dim, part.shape[-1]) for part in parts]
            joined = torch.cat(grouped, dim=1).reshape(-1, value.shape[-1])
            renamed[name.replace("self_attn.q_proj", "attention.wqkv")] = joined
        elif "k_proj" not in name and "v_proj" not in name:
            for ours, theirs in INTERNLM2.items():
                name = name.replace(ours, theirs)
            renamed[name] = value
    return renamed


def save_tokenizer(folder: Path) -> transformers.PreTrainedTokenizerFast:
    """Writes the tokenizer and its template, and reads them as Transformers does."""
    made = tokenizer()
    made.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    return transformers.PreTrainedTokenizerFast.from_pretrained(folder)


def spread(module: nn.Module) -> None:
    """Makes norms and biases count."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.add_(torch.randn_like(parameter) * 0.2)


def save(small: Small, trunk: nn.Module, top: nn.Module, folder: Path, config: dict[str, Any]) -> None:
    """Writes the checkpoint as its trainer does."""
    name = small.head.removesuffix(".mlp")
    tensors = {f"{small.prefix}.{key}": value for key, value in trunk.state_dict().items()}
    if small.model_type == "internlm2":
        tensors = as_internlm2(tensors)
    tensors |= {f"{name}.{key}": value for key, value in top.state_dict().items()}
    save_file(
        {key: value.to(torch.bfloat16).contiguous() for key, value in tensors.items()}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def configuration(small: Small) -> transformers.PreTrainedConfig:
    """What Transformers makes of the configuration."""
    kind = CLASSES[small.model_type]
    if small.model_type == "gemma3":
        text = transformers.Gemma3TextConfig(**SMALL | small.config)
        vision = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
        vision |= {"image_size": 28, "patch_size": 14}
        made = transformers.Gemma3Config(
            text_config=text, vision_config=vision, mm_tokens_per_image=4, initializer_range=0.4
        )
    elif small.file is not None:
        made = getattr(transformers, f"{kind}Config").from_dict(small.file | {"initializer_range": 0.2})
    else:
        made = getattr(transformers, f"{kind}Config")(**SMALL | small.config)
    made._attn_implementation = "eager"
    return made


def make_whole(small: Small, folder: Path) -> Reference:
    """Writes a checkpoint as Transformers does; gives what its class makes of tokens."""
    made = configuration(small)
    made.num_labels = small.rows
    model = getattr(transformers, f"{CLASSES[small.model_type]}ForSequenceClassification")(made).eval()
    spread(model)
    model.to(torch.bfloat16).save_pretrained(folder)
    # Read anew: tables of positions that were rounded with the model would stay so.
    model = type(model).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()

    def score(ids: list[int]) -> list[float]:
        logits: list[float] = model(input_ids=torch.tensor([ids])).logits[0].tolist()
        return logits

    return Reference((model,), score)


def make_parts(small: Small, folder: Path) -> Reference:
    """Writes a checkpoint whose head Transformers doesn't know; gives what its authors make of tokens."""
    kind = CLASSES[small.model_type]
    made = configuration(small)
    trunk = getattr(transformers, f"{kind}Model")(made).eval()
    spread(trunk)
    top = head(small, made.hidden_size)
    config = small.file or written(small, made)
    save(small, trunk, top, folder, config)
    for module in (trunk, top):
        module.load_state_dict({key: value.to(torch.bfloat16).float() for key, value in module.state_dict().items()})

    def score(ids: list[int]) -> list[float]:
        numbers = top(trunk(input_ids=torch.tensor([ids])).last_hidden_state[0])
        if small.rows == 1:
            return [numbers[-1, 0].item()]
        marks = [at for at, token in enumerate(ids) if token == SPECIAL.index("<extra_0>")]
        steps: list[float] = torch.softmax(numbers[marks].double(), dim=-1)[:, 1].tolist()
        return steps

    return Reference((trunk, top), score)


def written(small: Small, made: transformers.PreTrainedConfig) -> dict[str, Any]:
    """The configuration as the checkpoint's trainer writes it."""
    kind = CLASSES[small.model_type]
    config = made.to_dict() | {
        "architectures": [small.architecture or f"{kind}ForSequenceClassification"],
        "model_type": small.model_type,
        "id2label": {str(row): f"LABEL_{row}" for row in range(small.rows)},
        "dtype": "bfloat16",
        **small.written,
    }
    if small.architecture is not None:
        config |= {"auto_map": {"AutoModel": f"modeling.{small.architecture}"}}
    return {key: value for key, value in config.items() if value is not None or key == "sliding_window"}


def make(small: Small, folder: Path) -> tuple[transformers.PreTrainedTokenizerFast, Reference]:
    """Writes a checkpoint; gives its tokenizer, and what Transformers makes of tokens."""
    torch.manual_seed(len(small.name) * 1000 + sum(map(ord, small.name)))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    reference = make_whole(small, folder) if small.whole else make_parts(small, folder)
    return save_tokenizer(folder), reference


def messages_of(small: Small, turns: list[tuple[str, str]]) -> Messages:
    """A conversation; where steps are scored, with a mark behind each."""
    messages = [{"role": role, "content": content} for role, content in turns]
    if small.rows == 2:
        last = messages[-1]
        messages[-1] = last | {"content": "<extra_0>".join([*last["content"].split(" "), ""])}
    return messages


def record(small: Small) -> None:
    """Makes one checkpoint and records the scores of every conversation."""
    folder = HERE / small.name
    encoder, reference = make(small, folder)
    cases = []
    for turns in small.conversations:
        messages = messages_of(small, turns)
        text = encoder.apply_chat_template(messages, tokenize=False)
        ids = encoder(text, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            numbers = reference.score(ids)
        score: dict[str, Any] = {"reward": round(numbers[0], 7)}
        if small.rows == 2:
            score = {"steps": [round(value, 8) for value in numbers]}
        cases.append({"messages": messages, "tokens": ids, **score})
    (folder / "expected.json").write_text(
        json.dumps({"tolerance": 1e-4, "cases": cases}, ensure_ascii=False, indent=1) + "\n"
    )
    print(small.name, [case.get("reward", case.get("steps")) for case in cases])


def main() -> None:
    """Writes the checkpoints of the names given beside this file; all where there are none."""
    for small in CHECKPOINTS:
        if not sys.argv[1:] or small.name in sys.argv[1:]:
            record(small)


if __name__ == "__main__":
    main()
