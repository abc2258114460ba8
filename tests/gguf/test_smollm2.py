"""The demo models on SmolLM2, which come out of a GGUF file, score as other rebuilds of the same weights do.

`make setup-decoders` builds them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from karat_client import Client
from tests.server_files import MODELS, executable
from tools.server_process import ServerProcess

DECODERS = MODELS / "decoders"
QUESTION = "What is the capital of France?"
# The mean log-probabilities of another rebuild's answers.
KNOWN = {
    "The capital of France is Paris.": -0.3684,
    "The capital of France is a purple bicycle.": -4.2678,
}
# What Transformers 5.24 makes of the checkpoint, with `smol-reward`'s heads on the last state.
HEADS = {
    "The capital of France is Paris.": (-0.986055, -0.409137, -0.579903, 0.008909, -0.409036),
    "The capital of France is a purple bicycle.": (-0.762319, -0.156615, -0.43964, 0.213641, 0.138903),
}
MANIFEST = """\
head = {head}
[graph]
checkpoint = "{folder}"
[text]
tokenizer = "{folder}/tokenizer.json"
render = "chat_template"
max_tokens = 256
"""


@pytest.mark.skipif(not (DECODERS / "critic/config.json").is_file(), reason="make setup-decoders builds it")
def test_known_scores(tmp_path: Path) -> None:
    for name, source, head in (
        ("likely", "critic", '"log_probability"'),
        ("rewards", "smol-reward", "{ multi = { members = 5 } }"),
    ):
        (tmp_path / name).mkdir()
        manifest = MANIFEST.format(head=head, folder=(DECODERS / source).resolve())
        (tmp_path / name / "model.toml").write_text(manifest)
    flags = ("--strict", "--calibration-seconds", "0")
    with ServerProcess(executable(), tmp_path, *flags) as server, Client(server.url) as client:
        likely = client.score(prompts=QUESTION, responses=list(KNOWN), model="likely")
        assert [result.reward for result in likely.results] == pytest.approx(list(KNOWN.values()), abs=1e-4, rel=0)
        rewards = client.score(prompts=QUESTION, responses=list(HEADS), model="rewards", include=["members"])
        for result, known in zip(rewards.results, HEADS.values(), strict=True):
            assert result.ensemble.members == pytest.approx(known, abs=1e-4, rel=0)
