"""Infinity, a server of others, and the form in which it wants its models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path


def model_folder(model: Path, folder: Path) -> Path:
    """The model as Infinity wants to find it: a configuration, a tokenizer and the graph.

    What decides the forward pass is the graph; the configuration only says that
    it is a classifier with one label, whose pairs are cut at 512 tokens.
    """
    target = folder / "infinity" / model.name
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(model / "model.onnx", target / "model.onnx")
    shutil.copyfile(model / "tokenizer.json", target / "tokenizer.json")
    configuration = {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "hidden_size": 384,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "intermediate_size": 1536,
        "vocab_size": 30522,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
    }
    tokenizer = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 512,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "unk_token": "[UNK]",
    }
    (target / "config.json").write_text(json.dumps(configuration))
    (target / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return target
