"""Small random adapters over one small language model, and what PEFT makes of them.

`python -m tests.adapters.record_adapters`, with the names of some for those alone, needs torch, transformers and peft,
which nothing else here does: install them into an environment of their own.
Recorded with torch 2.15.0, transformers 5.24.0 and peft 0.21.2 on a CPU.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

from tests.checkpoints.record import tokenizer
from tests.checkpoints.small import CONVERSATIONS, SMALL, TEMPLATE

HERE = Path(__file__).parent
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ADAPTERS: dict[str, dict[str, Any]] = {
    "patterns": {
        "r": 4,
        "lora_alpha": 6,
        "target_modules": ["q_proj", "v_proj", "down_proj"],
        "rank_pattern": {"q_proj": 2, "layers.1.self_attn.v_proj": 3},
        "alpha_pattern": {"v_proj": 5, r"layers\.\d+\.mlp\.down_proj": 9},
        "bias": "lora_only",
    },
    "dora": {
        "r": 4,
        "lora_alpha": 4,
        "target_modules": [*ATTENTION, "gate_proj", "up_proj"],
        "use_dora": True,
        "use_rslora": True,
    },
    "embeddings": {"r": 3, "lora_alpha": 6, "target_modules": ["embed_tokens", "o_proj"], "bias": "all"},
    "stabilised": {"r": 3, "lora_alpha": 5, "target_modules": ATTENTION, "use_rslora": True},
    "saved": {"r": 2, "lora_alpha": 2, "target_modules": ATTENTION, "modules_to_save": ["embed_tokens", "norm"]},
}


def base() -> Path:
    """A language model without a reward head."""
    folder = HERE / "base"
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(7)
    configuration = transformers.LlamaConfig(**SMALL, attention_bias=True, tie_word_embeddings=True)
    model = transformers.LlamaForCausalLM(configuration)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    tokenizer().save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    return folder


def load(folder: Path) -> transformers.PreTrainedModel:
    """The base as a sequence classifier with a random head."""
    return transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=1, dtype=torch.float32, attn_implementation="eager"
    )


def record(name: str, settings: dict[str, Any], trunk: Path) -> None:
    """Makes one adapter as a trainer would and records the scores of every conversation."""
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(sum(map(ord, name)))
    config = peft.LoraConfig(task_type=peft.TaskType.SEQ_CLS, **settings)
    trained = peft.get_peft_model(load(trunk), config)
    with torch.no_grad():
        for key, parameter in trained.named_parameters():
            if parameter.requires_grad and "magnitude" not in key:
                parameter.add_(torch.randn_like(parameter) * 0.2)
            elif parameter.requires_grad:
                parameter.mul_(1 + torch.rand_like(parameter) * 0.5)
    trained.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink()
    written = json.loads((folder / "adapter_config.json").read_text())
    written["base_model_name_or_path"] = "../base"
    (folder / "adapter_config.json").write_text(json.dumps(written, indent=1, sort_keys=True) + "\n")
    model = peft.PeftModel.from_pretrained(load(trunk), folder).eval()
    encoder = transformers.PreTrainedTokenizerFast.from_pretrained(trunk)
    cases = []
    for turns in CONVERSATIONS:
        messages = [{"role": role, "content": content} for role, content in turns]
        ids = encoder(encoder.apply_chat_template(messages, tokenize=False), add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).logits
        cases.append({"messages": messages, "tokens": ids, "reward": round(logits[0, 0].item(), 7)})
    (folder / "expected.json").write_text(
        json.dumps({"tolerance": 1e-4, "cases": cases}, ensure_ascii=False, indent=1) + "\n"
    )
    print(name, [case["reward"] for case in cases])


def main() -> None:
    """Writes the base and every adapter beside this file, or the named adapters alone over the base that is there."""
    trunk = HERE / "base" if sys.argv[1:] else base()
    for name in sys.argv[1:] or ADAPTERS:
        record(name, ADAPTERS[name], trunk)


if __name__ == "__main__":
    main()
