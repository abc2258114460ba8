"""Small random encoders of the real classes, and what Transformers makes of pairs of texts.

`python -m tests.checkpoints.record_encoders [NAME ...]`, in the environment that `record.py` needs.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

HERE = Path(__file__).parent
PAIRS = (
    ("Hi", "Hello!"),
    ("What causes the tides?", "The moon's gravity, and the sun's."),
    ("Ein Käse für Ångström?", "価格は百円です。"),
    ("Name a prime above 100.", "101 is prime: none of 2, 3, 5 and 7 divides it, and 11 squared is above it. " * 2),
)
SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "vocab_size": 264,
    "max_position_embeddings": 258,
    "initializer_range": 0.4,
    "num_labels": 1,
}
DISTILBERT = {"dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 24}
DEBERTA = {
    "relative_attention": True,
    "position_buckets": 8,
    "max_relative_positions": -1,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
    "type_vocab_size": 0,
    "pooler_hidden_act": "gelu",
    "pooler_hidden_size": 16,
}
MODERN = {"num_hidden_layers": 4, "local_attention": 16, "pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2}
ENCODERS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("bert", "Bert", {}),
    ("roberta", "Roberta", {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3, "type_vocab_size": 1}),
    ("xlm-roberta", "XLMRoberta", {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3, "type_vocab_size": 1}),
    ("electra", "Electra", {"embedding_size": 8}),
    ("distilbert", "DistilBert", DISTILBERT),
    ("deberta-v3", "DebertaV2", DEBERTA),
    ("deberta-v2-convolution", "DebertaV2", DEBERTA | {"conv_kernel_size": 3, "conv_groups": 2, "conv_act": "gelu"}),
    ("modernbert", "ModernBert", {**MODERN, "classifier_pooling": "cls"}),
    ("modernbert-mean", "ModernBert", {**MODERN, "classifier_pooling": "mean"}),
)


def tokenizer(pad: int) -> tuple[Tokenizer, list[str]]:
    """A byte-level tokenizer that joins pairs; `pad` is the padding token's id."""
    special = ["<cls>", "<sep>", "<unk>"]
    special.insert(pad, "<pad>")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*special, *letters])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(special)
    made.post_processor = processors.TemplateProcessing(
        single="<cls> $A <sep>",
        pair="<cls> $A <sep> $B:1 <sep>:1",
        special_tokens=[(token, vocabulary[token]) for token in ("<cls>", "<sep>")],
    )
    return made, special


Encoded = tuple[list[int], list[int]]


def configuration(kind: str, changes: dict[str, Any]) -> transformers.PreTrainedConfig:
    """A small configuration of a family."""
    keys = {key: value for key, value in SMALL.items() if not (kind == "DistilBert" and key in DIFFERENT)}
    made: transformers.PreTrainedConfig = getattr(transformers, f"{kind}Config")(**(keys | changes))
    return made


def make(
    name: str, kind: str, made: transformers.PreTrainedConfig, folder: Path
) -> tuple[Callable[[str, str], Encoded], Callable[[Encoded], float]]:
    """Writes a checkpoint; gives how pairs become tokens, and what Transformers makes of those."""
    torch.manual_seed(sum(map(ord, name)))
    made._attn_implementation = "eager"
    model = getattr(transformers, f"{kind}ForSequenceClassification")(made).eval()
    with torch.no_grad():
        for title, parameter in model.named_parameters():
            if "norm" in title.lower() or title.endswith("bias"):
                parameter.add_(torch.randn_like(parameter) * 0.2)
            parameter.copy_(parameter.to(torch.bfloat16).float())
    shutil.rmtree(folder, ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    # Read anew: tables of positions that were rounded with the model would stay so.
    model = type(model).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    joined, _ = tokenizer(made.pad_token_id)
    joined.save(str(folder / "tokenizer.json"))
    settings = {"pad_token": "<pad>", "cls_token": "<cls>", "sep_token": "<sep>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    takes_segments = getattr(made, "type_vocab_size", 0) > 1

    def encode(first: str, second: str) -> Encoded:
        encoded = joined.encode(first, second)
        return encoded.ids, encoded.type_ids

    def score(encoded: Encoded) -> float:
        ids, types = encoded
        inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
        if takes_segments:
            inputs["token_type_ids"] = torch.tensor([types])
        reward: float = model(**inputs).logits[0, 0].item()
        return reward

    return encode, score


def record(name: str, kind: str, changes: dict[str, Any]) -> None:
    """Makes one checkpoint and records the scores of every pair."""
    folder = HERE / name
    encode, score = make(name, kind, configuration(kind, changes), folder)
    cases = []
    for first, second in PAIRS:
        ids, types = encode(first, second)
        with torch.no_grad():
            reward = round(score((ids, types)), 7)
        cases.append({"prompt": first, "response": second, "tokens": ids, "types": types, "reward": reward})
    (folder / "expected.json").write_text(
        json.dumps({"tolerance": 1e-4, "cases": cases}, ensure_ascii=False, indent=1) + "\n"
    )
    print(name, [case["reward"] for case in cases])


DIFFERENT = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


def main() -> None:
    """Writes the checkpoints of the names given beside this file; all where there are none."""
    for name, kind, changes in ENCODERS:
        if not sys.argv[1:] or name in sys.argv[1:]:
            record(name, kind, changes)


if __name__ == "__main__":
    main()
