"""Exports small random classifiers with optimum: `python -m tests.graphs.export`.

The graphs are those that users bring, with what optimum writes beside them. Each folder below `exported` holds one, and
`scores.json` what Transformers gives for a few texts, each alone. They are committed; this needs an environment with
optimum-onnx and the Transformers that it works with, which nothing else here needs.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import torch
from optimum.exporters.onnx import main_export
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

FOLDER = Path(__file__).parent / "exported"
WORDS = 120
# What pads isn't token 0, which is padded with where nobody says anything.
SPECIAL = ["<unk>", "<cls>", "<sep>", "<pad>"]
TEXTS = [
    "10 11",
    "20 21 22 23 24 25 26 27 28",
    "30 31 32 33 34 35 36 37 38",
    "40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55",
    "99 98 97",
]
SMALL = {
    "vocab_size": WORDS + len(SPECIAL),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
    "num_labels": 1,
    "pad_token_id": 3,
    # So large that rounding doesn't hide what moves.
    "initializer_range": 0.3,
}
KINDS: dict[str, dict[str, object]] = {
    "bert": {},
    "roberta": {"type_vocab_size": 1},
    "distilbert": {
        "dim": 16,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 24,
    },
    "deberta-v2": {
        "relative_attention": True,
        "position_buckets": 8,
        "pos_att_type": ["p2c", "c2p"],
        "type_vocab_size": 0,
    },
    "qwen3": {"num_key_value_heads": 1, "head_dim": 8},
}


def tokenizer() -> PreTrainedTokenizerFast:
    """A word is a token."""
    words = {token: place for place, token in enumerate([*SPECIAL, *map(str, range(WORDS))])}
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="<cls> $A <sep>", special_tokens=[("<cls>", 1), ("<sep>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", cls_token="<cls>", sep_token="<sep>", unk_token="<unk>"
    )


def main() -> None:
    """Writes every folder anew."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    scores: dict[str, list[float]] = {}
    for kind, more in KINDS.items():
        torch.manual_seed(7)
        config = AutoConfig.for_model(kind, **{**SMALL, **more})
        model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval()
        with tempfile.TemporaryDirectory() as checkpoint:
            model.save_pretrained(checkpoint)
            tokenizer().save_pretrained(checkpoint)
            main_export(checkpoint, FOLDER / kind, task="text-classification", do_validation=False)
            reader = AutoTokenizer.from_pretrained(checkpoint)
        with torch.no_grad():
            inputs = [reader(text, return_tensors="pt", return_token_type_ids=False) for text in TEXTS]
            scores[kind] = [model(**given).logits.item() for given in inputs]
        for file in (FOLDER / kind).iterdir():
            # The others say nothing that karat reads.
            if file.name not in {"model.onnx", "config.json", "special_tokens_map.json", "tokenizer_config.json"}:
                file.unlink()
        (FOLDER / "tokenizer.json").write_text(tokenizer().backend_tokenizer.to_str())
    (FOLDER / "scores.json").write_text(json.dumps({"texts": TEXTS, "scores": scores}, indent=1) + "\n")


if __name__ == "__main__":
    main()
