"""A checkpoint whose weights `torch.save` wrote, in two shards, with a value head in a file of its own.

`python -m tests.checkpoints.record_pickles` needs what `record.py` needs.
"""

from __future__ import annotations

import json
from typing import Any

import torch
import transformers
from torch import nn

from tests.checkpoints.record import HERE, tokenizer
from tests.checkpoints.small import CONVERSATIONS, SMALL, TEMPLATE

NAME = "pickled"


def main() -> None:
    """Writes the checkpoint and records the scores of every conversation."""
    torch.manual_seed(20)
    configuration = transformers.LlamaConfig(**SMALL)
    configuration._attn_implementation = "eager"
    trunk = transformers.LlamaModel(configuration).eval()
    head = nn.Linear(configuration.hidden_size, 1)
    for module in (trunk, head):
        module.load_state_dict({key: value.half().float() for key, value in module.state_dict().items()})
    folder = HERE / NAME
    folder.mkdir(exist_ok=True)
    tensors = {f"model.{key}": value.half() for key, value in trunk.state_dict().items()}
    # Half of a larger storage, and a parameter: both are common in what trainers save.
    wide = torch.cat([torch.zeros(3, configuration.hidden_size).half(), tensors["model.embed_tokens.weight"]])
    tensors["model.embed_tokens.weight"] = wide[3:]
    tensors["model.norm.weight"] = nn.Parameter(tensors["model.norm.weight"])
    # A language model's own head, which the value head replaces.
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    names = sorted(tensors)
    shards = {"pytorch_model-00001-of-00002.bin": names[:9], "pytorch_model-00002-of-00002.bin": names[9:]}
    for file, held in shards.items():
        torch.save({name: tensors[name] for name in held}, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, held in shards.items() for name in held}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=1) + "\n")
    torch.save({f"v_head.summary.{key}": value for key, value in head.state_dict().items()}, folder / "value_head.bin")
    torch.save({"learning_rate": 1e-5}, folder / "training_args.bin")
    config = configuration.to_dict() | {"architectures": ["LlamaForCausalLM"], "dtype": "float16"}
    unsaid = {"id2label", "label2id"}
    config = {key: value for key, value in config.items() if value is not None and key not in unsaid}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    tokenizer().save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    encoder = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    cases: list[dict[str, Any]] = []
    for turns in CONVERSATIONS:
        messages = [{"role": role, "content": content} for role, content in turns]
        ids = encoder(encoder.apply_chat_template(messages, tokenize=False), add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            state = trunk(input_ids=torch.tensor([ids])).last_hidden_state[0]
            reward = round(head(state)[-1, 0].item(), 7)
        cases.append({"messages": messages, "tokens": ids, "reward": reward})
    (folder / "expected.json").write_text(
        json.dumps({"tolerance": 1e-4, "cases": cases}, ensure_ascii=False, indent=1) + "\n"
    )
    print(NAME, [case["reward"] for case in cases])


if __name__ == "__main__":
    main()
