"""What Transformers makes of control tokens that are letters (`split_special_tokens=True`).

`PYTHONPATH=python python -m tests.tokenizers.control_tokens` needs transformers, which nothing else here does: install
it into an environment of its own. It writes `control_tokens.json` beside this file: small tokenizers, texts and ids.
Recorded with transformers 5.24.0.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).parent
SPECIAL = ["</s>", "<|end|>"]
TEXTS = [
    "the answer </s> is 12",
    "</s><|end|>",
    " So<|end|> it ends\n",
    "<tool>a</s>b <tool> c",
    "nothing of it",
]


def word_pieces() -> Tokenizer:
    """Letters in lower case, with their beginnings told from the rest, as BERT has them."""
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = {"[UNK]": 0} | {piece: i + 1 for i, piece in enumerate(letters + ["##" + x for x in letters])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def sentence_pieces() -> Tokenizer:
    """Letters with a mark for a space, which the first word alone gets, as newer Llama tokenizers have them."""
    vocabulary = [("<unk>", 0.0)] + [(chr(code), -1.0) for code in [*range(33, 127), 0x2581]]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    return tokenizer


def main() -> None:
    """Record both tokenizers on all texts."""
    tokenizers, cases = {}, []
    for name, tokenizer in [("word pieces", word_pieces()), ("sentence pieces", sentence_pieces())]:
        tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
        tokenizer.add_tokens([AddedToken("<tool>", normalized=False, special=False)])
        tokenizers[name] = json.loads(tokenizer.to_str())
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
        for text in TEXTS:
            ids = fast(text, split_special_tokens=True, add_special_tokens=False)["input_ids"]
            cases.append({"tokenizer": name, "text": text, "ids": ids})
    written = json.dumps({"tokenizers": tokenizers, "cases": cases}, ensure_ascii=False)
    (HERE / "control_tokens.json").write_text(written + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
