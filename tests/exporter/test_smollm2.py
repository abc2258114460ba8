"""The built critic gives the log-probabilities that are known of its weights.

`make setup-decoders` builds it; `.venv/bin/python -m unittest tests.exporter.test_smollm2`. The figures are those of
another rebuild of the same weights, made before this exporter.
"""

from __future__ import annotations

import unittest
from pathlib import Path

import numpy as np

from models.tools.decoder.chat import ChatTemplate
from models.tools.decoder.checkpoint import SpecialTokens
from models.tools.decoder.folder import GRAPH, TEMPLATE
from models.tools.decoder.reference import log_softmax
from models.tools.decoder.session import PrefixSession
from models.tools.dialogues import Message, load_tokenizer

CRITIC = Path(__file__).parents[2] / "models" / "decoders" / "critic"
QUESTION = "What is the capital of France?"
KNOWN = {
    "The capital of France is Paris.": -0.3684,
    "The capital of France is a purple bicycle.": -4.2678,
}


@unittest.skipUnless((CRITIC / GRAPH).is_file(), "make setup-decoders builds it")
class Critic(unittest.TestCase):
    """The real weights through GGUF, graph, tokenizer and template."""

    def test_mean_log_probability_of_answers(self) -> None:
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
            self.assertAlmostEqual(float(likelihoods.mean()), known, delta=1e-4)


if __name__ == "__main__":
    unittest.main()
