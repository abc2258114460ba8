"""Small random checkpoints of the real classes, and what Transformers makes of them.

`python tests/checkpoints/record.py` needs torch, transformers and safetensors, which nothing else here does: install
them into an environment of their own.
Weights are stored as bfloat16 and computed with in float32, eagerly: what a server that widens them has to give.
Recorded with torch 2.15.0 and transformers 5.24.0 on a CPU.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn

HERE = Path(__file__).parent
SPECIAL = ("<pad>", "<s>", "</s>", "<extra_0>")
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}"
    "{{ eos_token }}{% endfor %}"
)
SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 24,
    "vocab_size": 264,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.4,
}
CONVERSATIONS = (
    [("user", "Hi"), ("assistant", "Hello!")],
    [("user", "What causes the tides?"), ("assistant", "The moon's gravity, and the sun's.")],
    [
        ("user", "Name a prime above 10."),
        ("assistant", "11"),
        ("user", "And above 100?"),
        ("assistant", "101 is prime: none of 2, 3, 5 and 7 divides it."),
    ],
    [("user", "Ein Käse für Ångström?"), ("assistant", "価格は百円です。")],
)


@dataclass(frozen=True)
class Small:
    """One checkpoint: a class of Transformers, what its configuration says beyond `SMALL`, and a head of one's own."""

    name: str
    model_type: str
    head: str = "score"
    config: dict[str, Any] = field(default_factory=dict)
    # What is written into `config.json` afterwards.
    written: dict[str, Any] = field(default_factory=dict)
    architecture: str | None = None
    rows: int = 1


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
GATED = {"attn_logit_softcapping": 5.0, "query_pre_attn_scalar": 12, "sliding_window": 512}
CHECKPOINTS = (
    Small("llama3", "llama", config={"rope_parameters": LLAMA3}),
    Small("llama-linear", "llama", config={"rope_parameters": LINEAR, "attention_bias": True, "mlp_bias": True}),
    Small("llama-yarn", "llama", config={"rope_parameters": YARN}),
    Small(
        "openrlhf",
        "llama",
        head="value_head",
        written={"value_head_prefix": "value_head", "mean": -2.58, "std": 3.02, "normalize_reward": True},
    ),
    Small("grm", "llama", head="v_head.summary", written={"vhead_layer_type": "linear", "vhead_num_layers": 1}),
    Small(
        "qwen2-math-rm",
        "qwen2",
        head="score.mlp",
        architecture="Qwen2ForRewardModel",
        config={"use_sliding_window": False},
    ),
    Small("qwen2-math-prm", "qwen2", head="score.mlp", architecture="Qwen2ForProcessRewardModel", rows=2),
    Small("qwen3", "qwen3"),
    Small("mistral", "mistral", config={"sliding_window": None}),
    Small("gemma", "gemma"),
    Small("gemma2", "gemma2", config=GATED),
    Small("phi3", "phi3"),
    Small("olmo2", "olmo2"),
    Small("smollm3", "smollm3", config={"num_hidden_layers": 4, "no_rope_layer_interval": 2}),
    Small("internlm2", "internlm2", head="v_head", config={"bias": False}, architecture="InternLM2ForRewardModel"),
)
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
    return nn.Linear(width, small.rows, bias=small.head == "v_head.summary")


def as_internlm2(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Llama's tensors under InternLM2's names: in each group of heads the queries, then the key, then the value."""
    kv_heads, head_dim = SMALL["num_key_value_heads"], SMALL["head_dim"]
    written = {}
    for name, value in tensors.items():
        if "q_proj" in name:
            parts = [value, tensors[name.replace("q_proj", "k_proj")], tensors[name.replace("q_proj", "v_proj")]]
            grouped = [part.reshape(kv_heads, -1, head_dim, part.shape[-1]) for part in parts]
            joined = torch.cat(grouped, dim=1).reshape(-1, value.shape[-1])
            written[name.replace("self_attn.q_proj", "attention.wqkv")] = joined
        elif "k_proj" not in name and "v_proj" not in name:
            for ours, theirs in INTERNLM2.items():
                name = name.replace(ours, theirs)
            written[name] = value
    return written


def save(small: Small, trunk: nn.Module, top: nn.Module, folder: Path, config: dict[str, Any]) -> None:
    """Writes the checkpoint as its trainer does."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    name = small.head.removesuffix(".mlp")
    tensors = {f"model.{key}": value for key, value in trunk.state_dict().items()}
    if small.model_type == "internlm2":
        tensors = as_internlm2(tensors)
    tensors |= {f"{name}.{key}": value for key, value in top.state_dict().items()}
    save_file(
        {key: value.to(torch.bfloat16).contiguous() for key, value in tensors.items()}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    made = tokenizer()
    made.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")


def record(small: Small) -> None:
    """Makes one checkpoint and records the scores of every conversation."""
    torch.manual_seed(len(small.name) * 1000 + sum(map(ord, small.name)))
    kind = CLASSES[small.model_type]
    configuration = getattr(transformers, f"{kind}Config")(**SMALL | small.config)
    configuration._attn_implementation = "eager"
    trunk = getattr(transformers, f"{kind}Model")(configuration).eval()
    with torch.no_grad():
        for name, parameter in trunk.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.add_(torch.randn_like(parameter) * 0.2)
    top = head(small, configuration.hidden_size)
    config = configuration.to_dict() | {
        "architectures": [small.architecture or f"{kind}ForSequenceClassification"],
        "model_type": small.model_type,
        "id2label": {str(row): f"LABEL_{row}" for row in range(small.rows)},
        "dtype": "bfloat16",
        **small.written,
    }
    if small.architecture is not None:
        config |= {"auto_map": {"AutoModel": f"modeling.{small.architecture}"}}
    folder = HERE / small.name
    save(
        small,
        trunk,
        top,
        folder,
        {key: value for key, value in config.items() if value is not None or key == "sliding_window"},
    )
    for module in (trunk, top):
        module.load_state_dict({key: value.to(torch.bfloat16).float() for key, value in module.state_dict().items()})
    encoder = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    cases = []
    for turns in CONVERSATIONS:
        messages = [{"role": role, "content": content} for role, content in turns]
        if small.rows == 2:
            last = messages[-1]
            messages[-1] = last | {"content": "<extra_0>".join([*last["content"].split(" "), ""])}
        text = encoder.apply_chat_template(messages, tokenize=False)
        ids = encoder(text, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            state = trunk(input_ids=torch.tensor([ids])).last_hidden_state[0]
            numbers = top(state)
        if small.rows == 2:
            marks = [at for at, token in enumerate(ids) if token == SPECIAL.index("<extra_0>")]
            steps = torch.softmax(numbers[marks].double(), dim=-1)[:, 1]
            score: dict[str, Any] = {"steps": [round(value, 8) for value in steps.tolist()]}
        else:
            score = {"reward": round(numbers[-1, 0].item(), 7)}
        cases.append({"messages": messages, "tokens": ids, **score})
    (folder / "expected.json").write_text(
        json.dumps({"tolerance": 1e-4, "cases": cases}, ensure_ascii=False, indent=1) + "\n"
    )
    print(small.name, [case.get("reward", case.get("steps")) for case in cases])


def main() -> None:
    """Writes every checkpoint beside this file."""
    for small in CHECKPOINTS:
        record(small)


if __name__ == "__main__":
    main()
