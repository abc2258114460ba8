"""The tokenizer of a GGUF file, as `tokenizer.json` and `tokenizer_config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tools.gguf.configuration import Unsupported

# Token types of the format.
CONTROL, USER_DEFINED = 3, 4
GPT2_WORDS = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": True,
}
BYTES_ONLY = {**GPT2_WORDS, "use_regex": False}
LETTERS_AND_MARKS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _split(pattern: str) -> dict[str, Any]:
    split = {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    return {"type": "Sequence", "pretokenizers": [split, BYTES_ONLY]}


# How a text falls into words, by the name that the file gives the rule.
WORDS: dict[str, dict[str, Any]] = {
    "default": GPT2_WORDS,
    "gpt-2": GPT2_WORDS,
    "smollm": {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, GPT2_WORDS],
    },
    "llama-bpe": _split(LETTERS_AND_MARKS % r"\p{N}{1,3}"),
    "qwen2": _split(LETTERS_AND_MARKS % r"\p{N}"),
}


def tokenizer(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The `tokenizer.json` of a byte-level BPE; raises Unsupported for another kind."""
    kind = metadata.get("tokenizer.ggml.model")
    # Without a rule the words might be split in any way.
    rule = metadata.get("tokenizer.ggml.pre")
    if kind != "gpt2" or rule not in WORDS:
        raise Unsupported(
            f"a tokenizer of the kind {kind!r} with the rule {rule!r} can't be rebuilt from the file: pass the model's "
            "own tokenizer.json with --tokenizer"
        )
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    added = [
        {
            "id": index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": token_type == CONTROL,
        }
        for index, (token, token_type) in enumerate(zip(tokens, types, strict=True))
        if token_type in (CONTROL, USER_DEFINED)
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"} if rule == "qwen2" else None,
        "pre_tokenizer": WORDS[rule],
        "post_processor": _around(metadata),
        "decoder": GPT2_WORDS,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": rule == "llama-bpe",
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in metadata["tokenizer.ggml.merges"]],
        },
    }


def _around(metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the tokenizer puts before and behind a text by itself: a BOS, an EOS, or nothing."""
    tokens = metadata["tokenizer.ggml.tokens"]
    special: dict[str, Any] = {}

    def added(kind: str) -> list[dict[str, Any]]:
        if not metadata.get(f"tokenizer.ggml.add_{kind}_token", False):
            return []
        index = metadata.get(f"tokenizer.ggml.{kind}_token_id")
        if index is None:
            raise Unsupported(f"the file says that a {kind.upper()} is added, and not which token it is")
        token = tokens[index]
        special[token] = {"id": token, "ids": [int(index)], "tokens": [token]}
        return [{"SpecialToken": {"id": token, "type_id": 0}}]

    before, behind = added("bos"), added("eos")
    if not special:
        return None
    texts = [{"Sequence": {"id": name, "type_id": kind}} for kind, name in enumerate("AB")]
    single, second = [*before, texts[0], *behind], [*before, texts[1], *behind]
    return {"type": "TemplateProcessing", "single": single, "pair": [*single, *second], "special_tokens": special}


def settings(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The `tokenizer_config.json`: the tokens that a template and a server must know by name."""
    tokens = metadata.get("tokenizer.ggml.tokens", [])
    named = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for name, kind in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        index = metadata.get(f"tokenizer.ggml.{kind}_token_id")
        if index is not None:
            named[f"{name}_token"] = tokens[index]
    return named
