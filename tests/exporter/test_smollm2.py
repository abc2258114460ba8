"""The built critic gives the log-probabilities that are known of its weights.

`make setup-decoders` builds it. The figures are those of another rebuild of the same weights.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tools.decoder.chat import ChatTemplate
from tools.decoder.checkpoint import SpecialTokens
from tools.decoder.folder import GRAPH, TEMPLATE
from tools.decoder.reference import log_softmax
from tools.decoder.session import PrefixSession
from tools.dialogues import Message, load_tokenizer

CRITIC = Path(__file__).parents[2] / "models" / "decoders" / "critic"
QUESTION = "What is the capital of France?"
KNOWN = {
    "The capital of France is Paris.": -0.3684,
    "The capital of France is a purple bicycle.": -4.2678,
}


@pytest.mark.skipif(not (CRITIC / GRAPH).is_file(), reason="make setup-decoders builds it")
def test_mean_log_probability_of_answers() -> None:
    tokenizer = load_tokenizer(str(CRITIC / "tokenizer.json"))
    template = ChatTemplate((CRITIC / TEMPLATE).read_text(), SpecialTokens())
    session = PrefixSession(CRITIC / GRAPH)
    for answer, known in KNOWN.items():
        text = template.render([Message("user", QUESTION), Message("assistant", answer)])
        before = text[: text.index(answer)]
        start = len(tokenizer.encode(before, add_special_tokens=False).ids)
        ids = tokenizer.encode(before + answer, add_special_tokens=False).ids
        logits, _ = session.run("logits", ids, list(range(start - 1, len(ids) - 1)))
        likelihoods = log_softmax(logits.astype(np.float64))[np.arange(len(ids) - start), ids[start:]]
        assert float(likelihoods.mean()) == pytest.approx(known, abs=1e-4, rel=0)
