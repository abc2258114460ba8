"""A GGUF file gives the checkpoint that it was made of, and karat serves that as what it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter, dequantize, quantize
from safetensors.numpy import load_file
from tokenizers import Tokenizer, pre_tokenizers

from karat_client import Client
from tests.server_files import ROOT, executable
from tools.gguf import __main__ as command
from tools.gguf.tensors import LAYER_NAMES, TOP_NAMES
from tools.random_llama import random_llama
from tools.server_process import ServerProcess

TINY = ROOT / "tests/graphs/tiny_decoder_lm"
TEMPLATE = "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{{ eos_token }}{% endfor %}"
MANIFEST = """\
head = "log_probability"
[graph]
checkpoint = "."
[text]
render = { jinja = "{% for m in messages %}{{ m['content'] }} {% endfor %}" }
max_tokens = 200
"""
SPECIAL = ("<pad>", "<s>", "</s>")
LLAMA: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 64,
    "vocab_size": 264,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 20_000.0,
    "tie_word_embeddings": False,
}
F32, F16, BF16, Q8_0 = (GGMLQuantizationType[name] for name in ("F32", "F16", "BF16", "Q8_0"))


class Source:
    """What a GGUF file is written of, as llama.cpp's converter writes it."""

    def __init__(self, path: Path, configuration: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        self.path, self.configuration, self.tensors = path, configuration, tensors
        self.type = F32
        self.rule: str | None = "gpt-2"
        self.names_special_tokens = True
        self.metadata: dict[str, str | float | bool] = {}
        self.extra: dict[str, np.ndarray] = {}

    def write(self) -> dict[str, np.ndarray]:
        """Writes the file; returns the tensors as they survive it, widened."""
        writer, c = GGUFWriter(self.path, "llama"), self.configuration
        writer.add_block_count(c["num_hidden_layers"])
        writer.add_context_length(c["max_position_embeddings"])
        writer.add_embedding_length(c["hidden_size"])
        writer.add_feed_forward_length(c["intermediate_size"])
        writer.add_head_count(c["num_attention_heads"])
        writer.add_head_count_kv(c["num_key_value_heads"])
        writer.add_layer_norm_rms_eps(c["rms_norm_eps"])
        writer.add_rope_freq_base(c["rope_theta"])
        for key, value in self.metadata.items():
            if isinstance(value, str):
                writer.add_string(key, value)
            elif isinstance(value, bool):
                writer.add_bool(key, value)
            else:
                writer.add_float32(key, value)
        self._add_tokenizer(writer)
        survived = {name: self._add(writer, name, value) for name, value in self.tensors.items()}
        for name, tensor in self.extra.items():
            writer.add_tensor(name, tensor)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return survived

    def _add_tokenizer(self, writer: GGUFWriter) -> None:
        writer.add_tokenizer_model("gpt2")
        if self.rule is not None:
            writer.add_tokenizer_pre(self.rule)
        tokens = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab"]
        tokens += [f"<unused{index}>" for index in range(self.configuration["vocab_size"] - len(tokens))]
        writer.add_token_list(tokens)
        writer.add_token_types([3 if token in SPECIAL or "unused" in token else 1 for token in tokens])
        writer.add_token_merges(["a b"])
        if self.names_special_tokens:
            writer.add_pad_token_id(0)
            writer.add_bos_token_id(1)
            writer.add_eos_token_id(2)
        writer.add_chat_template(TEMPLATE)

    def _add(self, writer: GGUFWriter, name: str, value: np.ndarray) -> np.ndarray:
        names = {ours: theirs for theirs, ours in {**TOP_NAMES, **LAYER_NAMES}.items()}
        stem, prefix = name.removesuffix(".weight"), ""
        if stem.startswith("model.layers."):
            _, _, layer, stem = stem.split(".", 3)
            prefix = f"blk.{layer}."
        heads = {"self_attn.q_proj": "num_attention_heads", "self_attn.k_proj": "num_key_value_heads"}.get(stem)
        written = value
        if heads:
            # llama.cpp rotates neighbours: i and i + half of a head become 2i and 2i + 1.
            halves = value.reshape(self.configuration[heads], 2, -1, value.shape[1])
            written = np.ascontiguousarray(halves.swapaxes(1, 2).reshape(value.shape))
        type_ = self.type if value.ndim == 2 else F32
        packed = quantize(written, type_)
        writer.add_tensor(f"{prefix}{names[stem]}.weight", packed, raw_dtype=type_)
        widened = dequantize(packed, type_).reshape(value.shape).astype(np.float32)
        if not heads:
            return widened
        pairs = widened.reshape(self.configuration[heads], -1, 2, value.shape[1])
        return pairs.swapaxes(1, 2).reshape(value.shape)


def convert(*arguments: str | Path) -> None:
    """Runs the command line."""
    with mock.patch("sys.argv", ["gguf", *map(str, arguments)]):
        command.main()


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path / "tiny.gguf", LLAMA, random_llama(LLAMA, seed=6))


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def bits(path: Path) -> dict[str, tuple[str, bytes]]:
    """Type and bytes of each tensor, whatever numpy knows of the type."""
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    header.pop("__metadata__")
    places = {name: (entry["dtype"], entry["data_offsets"]) for name, entry in header.items()}
    return {name: (dtype, raw[start + begin : start + end]) for name, (dtype, (begin, end)) in places.items()}


class TestWeights:
    def test_quantised_ones_are_widened(self, source: Source, tmp_path: Path) -> None:
        source.type = Q8_0
        survived = source.write()
        convert(source.path, tmp_path / "out")
        written = load_file(tmp_path / "out/model.safetensors")
        assert written.keys() == survived.keys()
        for name, value in survived.items():
            np.testing.assert_array_equal(written[name], value)

    @pytest.mark.parametrize(("type_", "name"), [(F16, "F16"), (BF16, "BF16")])
    def test_half_precision_is_kept_bit_by_bit(
        self, source: Source, tmp_path: Path, type_: GGMLQuantizationType, name: str
    ) -> None:
        source.type = type_
        survived = source.write()
        convert(source.path, tmp_path / "out")
        for tensor, (dtype, written) in bits(tmp_path / "out/model.safetensors").items():
            value = survived[tensor]
            if value.ndim == 1:
                assert (dtype, written) == ("F32", value.tobytes())
                continue
            wanted = value.astype(np.float16) if type_ == F16 else (value.view(np.uint32) >> 16).astype(np.uint16)
            assert (dtype, written) == (name, wanted.tobytes())

    def test_karat_scores_them_as_transformers_scored_the_original(self, tmp_path: Path) -> None:
        weights = load_file(TINY / "model.safetensors")
        source = Source(tmp_path / "tiny.gguf", read_json(TINY / "config.json"), weights)
        source.names_special_tokens = False
        source.write()
        folder = tmp_path / "models/tiny"
        convert(source.path, folder, "--tokenizer", TINY / "tokenizer.json")
        (folder / "model.toml").write_text(MANIFEST)
        cases = read_json(TINY.parent / "tiny_decoders.json")["tiny_decoder_lm"]
        with ServerProcess(executable(), folder.parent, "--strict") as server, Client(server.url, "tiny") as client:
            for case in cases[2:]:
                first, *rest = map(str, case["ids"])
                tokens = client.tokens(prompts=first, responses=[" ".join(rest)]).results[0].token_rewards
                assert [token.reward for token in tokens] == pytest.approx(
                    case["next_token_log_probabilities"], abs=1e-4, rel=0
                )


class TestWhatIsBesideTheWeights:
    def test_configuration(self, source: Source, tmp_path: Path) -> None:
        source.write()
        convert(source.path, tmp_path / "out")
        written = read_json(tmp_path / "out/config.json")
        assert {key: written[key] for key in LLAMA} == pytest.approx(LLAMA)
        assert written["architectures"] == ["LlamaForCausalLM"]

    def test_template_and_special_tokens(self, source: Source, tmp_path: Path) -> None:
        source.write()
        convert(source.path, tmp_path / "out")
        assert (tmp_path / "out/chat_template.jinja").read_text() == TEMPLATE
        settings = read_json(tmp_path / "out/tokenizer_config.json")
        assert [settings[f"{kind}_token"] for kind in ("pad", "bos", "eos")] == list(SPECIAL)

    def test_a_text_is_put_between_the_tokens_that_the_file_names(self, source: Source, tmp_path: Path) -> None:
        def ids() -> list[int]:
            source.write()
            convert(source.path, tmp_path / "out")
            return Tokenizer.from_file(str(tmp_path / "out/tokenizer.json")).encode("ab").ids

        bare = ids()
        assert len(bare) == 1
        source.metadata["tokenizer.ggml.add_bos_token"] = True
        assert ids() == [1, *bare]
        source.metadata["tokenizer.ggml.add_eos_token"] = True
        assert ids() == [1, *bare, 2]


class TestRefused:
    """What would give wrong scores is refused, with the reason, before anything is written."""

    def refused(self, source: Source, reason: str) -> None:
        source.write()
        folder = source.path.parent / "out"
        with pytest.raises(SystemExit, match=f"not converted: .*{reason}"):
            convert(source.path, folder)
        assert not folder.exists()

    def test_words_of_no_known_rule(self, source: Source) -> None:
        source.rule = None
        self.refused(source, "the rule None")

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("llama.rope.scaling.type", "yarn"),
            ("llama.attention.scale", 0.5),
            ("llama.attention.causal", False),
            ("llama.rope.scale_linear", 2.0),
        ],
    )
    def test_metadata_that_changes_what_is_computed(self, source: Source, key: str, value: str | float | bool) -> None:
        source.metadata[key] = value
        self.refused(source, f"{key} = ")

    def test_a_tensor_without_a_place(self, source: Source) -> None:
        source.extra["blk.0.mystery.weight"] = np.ones(3, np.float32)
        self.refused(source, "blk.0.mystery.weight has no place")

    def test_scaled_rotations(self, source: Source) -> None:
        source.extra["rope_freqs.weight"] = np.ones(4, np.float32)
        self.refused(source, "rope_freqs")

    def test_a_type_that_is_not_read(self, source: Source) -> None:
        source.extra["output_norm.bias"] = np.ones(3, np.float64)
        self.refused(source, "stored as F64")

    def test_what_is_no_gguf_file(self, source: Source) -> None:
        source.path.write_bytes(b"no model")
        with pytest.raises(SystemExit, match="not converted"):
            convert(source.path, source.path.parent / "out")
