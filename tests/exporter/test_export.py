"""Exported checkpoints against what Transformers recorded, and what must not be exported."""

from __future__ import annotations

import contextlib
import io
import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import onnxruntime
import pytest
from gguf import GGMLQuantizationType, GGUFWriter, dequantize, quantize
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from tests.exporter.checkpoints import CHECKPOINTS, SPECIAL, TEMPLATE, RandomCheckpoint, tokenizer
from tools import export
from tools.decoder import parity
from tools.decoder.chat import ChatTemplate
from tools.decoder.checkpoint import SpecialTokens
from tools.decoder.classic import build_classic
from tools.decoder.config import DecoderConfig, Unsupported, parse_config
from tools.decoder.gguf_file import LAYER_NAMES, TOP_NAMES, read_gguf
from tools.decoder.reference import Reference, log_softmax
from tools.decoder.session import PrefixSession
from tools.decoder.weights import ArrayWeights
from tools.dialogues import Message

TOLERANCE = 2e-5
RECORDED = json.loads((Path(__file__).parent / "transformers.json").read_text())
BY_NAME = {checkpoint.name: checkpoint for checkpoint in CHECKPOINTS}


class Folder:
    """A test with a scratch folder."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def export(self, *arguments: str) -> str:
        """Runs the exporter's command line; returns what it says, SystemExit's message included."""
        said = io.StringIO()
        with mock.patch("sys.argv", ["export", *arguments]), contextlib.redirect_stdout(said):
            export.main()
        return said.getvalue()

    def export_checkpoint(self, checkpoint: RandomCheckpoint, *flags: str) -> Path:
        """Writes and exports a checkpoint; returns the model folder."""
        source, output = self.folder / "checkpoint", self.folder / "model"
        checkpoint.write(source)
        self.export(str(source), "--output", str(output), *flags)
        return output

    def assert_close(self, found: np.ndarray, wanted: object) -> None:
        np.testing.assert_allclose(found, np.array(wanted), rtol=0, atol=TOLERANCE)


class TestAgainstTransformers(Folder):
    """Each architecture gives what Transformers gave for the same weights."""

    def check(self, name: str, *flags: str) -> None:
        checkpoint, recorded = BY_NAME[name], RECORDED[name]
        assert checkpoint.digest() == recorded["weights"], (
            "this numpy draws other random weights: record the fixture anew (tests/exporter/record.py)"
        )
        session = PrefixSession(self.export_checkpoint(checkpoint, *flags) / "model.onnx")
        for ids, case in zip(RECORDED["texts"], recorded["cases"], strict=True):
            everywhere = list(range(len(ids)))
            if "scores" in case:
                scores, _ = session.run("scores", ids, everywhere)
                self.assert_close(scores, case["scores"])
                answer = scores if checkpoint.config["architectures"][0].endswith("TokenClassification") else scores[-1]
                self.assert_close(answer, case["answer"])
            else:
                logits, _ = session.run("logits", ids, everywhere)
                self.assert_close(logits[-1], case["last_logits"])
                following = log_softmax(logits.astype(np.float64))[everywhere[:-1], ids[1:]]
                self.assert_close(following, case["next_token_log_probabilities"])
                hidden, _ = session.run("hidden", ids, everywhere[-1:])
                self.assert_close(hidden[0], case["last_hidden"])

    def test_llama_with_scaled_rotations(self) -> None:
        self.check("llama_reward")

    def test_llama_with_biases(self) -> None:
        self.check("llama_with_biases")

    def test_qwen2_in_shards(self) -> None:
        self.check("qwen2_process", "--head", '"scalar"')

    def test_qwen3_in_bfloat16(self) -> None:
        self.check("qwen3_language_model")

    def test_mistral_with_three_heads(self) -> None:
        self.check("mistral_ensemble", "--head", "{ multi = { members = 3 } }")

    def test_reference(self) -> None:
        """The numpy implementation is held to the same record, or it would prove nothing."""
        for checkpoint in CHECKPOINTS:
            reference = Reference(parse_config(checkpoint.full_config), ArrayWeights(checkpoint.weights()))
            for ids, case in zip(RECORDED["texts"], RECORDED[checkpoint.name]["cases"], strict=True):
                hidden = reference.hidden(ids)
                self.assert_close(hidden[-1], case["last_hidden"])
                if "scores" in case:
                    self.assert_close(reference.read("scores", hidden), case["scores"])


class TestClassic:
    """The graph of padded batches, with which the shared prefix is compared, gives the same scores."""

    def test_a_padded_batch(self) -> None:
        checkpoint = BY_NAME["llama_reward"]
        graph = build_classic(parse_config(checkpoint.full_config), ArrayWeights(checkpoint.weights()))
        session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
        texts, longest = RECORDED["texts"], max(len(ids) for ids in RECORDED["texts"])
        padded = np.array([ids + [0] * (longest - len(ids)) for ids in texts], np.int64)
        mask = np.array([[1] * len(ids) + [0] * (longest - len(ids)) for ids in texts], np.int64)
        (logits,) = session.run(["logits"], {"input_ids": padded, "attention_mask": mask})
        wanted = [case["answer"] for case in RECORDED["llama_reward"]["cases"]]
        np.testing.assert_allclose(logits, wanted, rtol=0, atol=TOLERANCE)


class TestWhatAFolderHolds(Folder):
    """The model folder serves without the checkpoint, and without a second copy of it."""

    def test_weights_are_the_checkpoints_own_file(self) -> None:
        output = self.export_checkpoint(BY_NAME["llama_reward"])
        file = output / "model.safetensors"
        assert file.samefile(self.folder / "checkpoint" / "model.safetensors")
        assert not (output / "weights.safetensors").exists()

    def test_bfloat16_is_widened_without_loss(self) -> None:
        checkpoint = BY_NAME["qwen3_language_model"]
        written = load_file(self.export_checkpoint(checkpoint) / "weights.safetensors")
        for name, value in checkpoint.weights().items():
            np.testing.assert_array_equal(written[name], value)

    def metadata(self, checkpoint: RandomCheckpoint, *flags: str) -> dict[str, str]:
        """What the exported graph says of itself."""
        graph = onnx.load(self.export_checkpoint(checkpoint, *flags) / "model.onnx", load_external_data=False)
        return {entry.key: entry.value for entry in graph.metadata_props}

    def test_metadata_names_the_contract(self) -> None:
        wanted = {
            "contract": "rm-prefix/1",
            "layers": "3",
            "kv_heads": "2",
            "head_dim": "8",
            "context": "512",
            "present": "new",
            "pad_id": "0",
        }
        properties = self.metadata(BY_NAME["llama_reward"])
        assert properties == {f"karat.{key}": value for key, value in wanted.items()}

    def test_only_a_sequence_classifier_skips_its_padding_token(self) -> None:
        assert "karat.pad_id" not in self.metadata(BY_NAME["qwen2_process"], "--head", '"scalar"')

    def test_no_padding_token(self) -> None:
        for absent in (None, -1):
            raw = {**BY_NAME["llama_reward"].full_config, "pad_token_id": absent}
            assert parse_config(raw).pad_token is None

    def test_manifest_and_template(self) -> None:
        output = self.export_checkpoint(BY_NAME["llama_reward"], "--max-tokens", "300")
        manifest = tomllib.loads((output / "model.toml").read_text())
        assert manifest["head"] == "scalar"
        assert manifest["graph"] == {"file": "model.onnx", "output": "scores"}
        text = manifest["text"]
        assert (text["render"], text["max_tokens"]) == ("chat_template", 300)
        tokens = [text[f"{name}_token"] for name in ("bos", "eos", "pad")]
        assert tokens == ["<s>", "</s>", "<pad>"]
        assert (output / "chat_template.jinja").read_text() == TEMPLATE

    def test_manifest_that_is_there_stays(self) -> None:
        output = self.folder / "model"
        output.mkdir()
        (output / "model.toml").write_text("mine = true\n")
        self.export_checkpoint(BY_NAME["llama_reward"])
        assert (output / "model.toml").read_text() == "mine = true\n"

    def test_heads_on_a_trunk(self) -> None:
        """Heads trained elsewhere read the last state of a language model."""
        weight = np.random.default_rng(3).standard_normal((5, 32)).astype(np.float32)
        bias = np.arange(5, dtype=np.float32)
        heads = self.folder / "heads.safetensors"
        save_file({"score.weight": weight, "score.bias": bias}, heads)
        flags = ("--heads", str(heads), "--head", "{ multi = { members = 5 } }")
        output = self.export_checkpoint(BY_NAME["llama_with_biases"], *flags)
        ids, recorded = RECORDED["texts"][2], RECORDED["llama_with_biases"]["cases"][2]
        scores, _ = PrefixSession(output / "model.onnx").run("scores", ids, [len(ids) - 1])
        self.assert_close(scores[0], weight @ np.array(recorded["last_hidden"]) + bias)

    def test_parity_is_recorded(self) -> None:
        report = json.loads((self.export_checkpoint(BY_NAME["llama_reward"]) / "parity.json").read_text())
        ways = {"whole", "continued", "packed"}
        assert all(report["scores"][way] <= report["scores"]["allowed"] for way in ways)

    def test_a_graph_that_differs_is_not_served(self) -> None:
        """Compared with the weights of another seed, the export fails and leaves no model.onnx."""
        checkpoint = BY_NAME["llama_reward"]
        other = RandomCheckpoint("other", checkpoint.config, seed=99)
        reference = Reference(parse_config(other.full_config), ArrayWeights(other.weights()))
        with (
            mock.patch.object(parity, "Reference", return_value=reference),
            pytest.raises(SystemExit, match="not exported: scores differ from the reference"),
        ):
            self.export_checkpoint(checkpoint)
        assert not (self.folder / "model" / "model.onnx").exists()

    def test_chat_template_renders_as_the_server_does(self) -> None:
        template = ChatTemplate(TEMPLATE, SpecialTokens(eos="</s>"))
        messages = [Message("user", "a"), Message("assistant", "b")]
        assert template.render(messages) == "<user>a</s><assistant>b</s>"


class TestRefused(Folder):
    """What would give wrong scores is refused, with the reason."""

    def refused(self, reason: str, **changes: object) -> None:
        config = {**BY_NAME["mistral_ensemble"].full_config, **changes}
        with pytest.raises(Unsupported, match=reason):
            parse_config(config)

    def test_a_head_that_the_manifest_could_not_hold(self) -> None:
        with pytest.raises(SystemExit, match=r"no TOML value.*'\"log_probability\"'"):
            self.export_checkpoint(BY_NAME["llama_reward"], "--head", "log_probability")
        assert not (self.folder / "model").exists()

    def test_configurations(self) -> None:
        self.refused("sliding_window = 64", sliding_window=64)
        self.refused("'yarn': only llama3", rope_scaling={"rope_type": "yarn", "factor": 2.0})
        self.refused("model_type 'gpt2'", model_type="gpt2")
        self.refused("quantization_config", quantization_config={"bits": 4})
        self.refused("num_local_experts", num_local_experts=8)
        self.refused("layer_types", layer_types=["full_attention", "sliding_attention"])
        self.refused("hidden_act 'gelu'", hidden_act="gelu")
        self.refused("MistralForSequenceClassification", architectures=["MistralModel"])
        self.refused("one of Mistral", architectures=["Gemma2ForSequenceClassification"])
        self.refused("auto_map", auto_map={"AutoModel": "modeling_other.Model"})
        self.refused("logit_bonus = 2.0 is not known", logit_bonus=2.0)
        self.refused("attention_multiplier", attention_multiplier=0.5)
        self.refused("type None", rope_scaling={"factor": 4.0})
        self.refused("by layer type", rope_parameters={"full_attention": {"rope_type": "yarn"}})
        self.refused(
            "name different types",
            rope_parameters={"rope_type": "default"},
            rope_scaling={"rope_type": "linear", "factor": 2.0},
        )
        self.refused(
            "original_max_position",
            rope_scaling={
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
            },
        )
        self.refused("num_labels is None", num_labels=None, id2label=None)
        self.refused("hidden_size is None", hidden_size=None)
        self.refused("no multiple", num_key_value_heads=3)
        self.refused("partial_rotary_factor", partial_rotary_factor=0.5)

    def test_a_window_as_long_as_the_context_is_none(self) -> None:
        config = {**BY_NAME["mistral_ensemble"].full_config, "sliding_window": 512}
        assert parse_config(config).context == 512

    def refused_folder(self, reason: str, change: Callable[[Path], None]) -> None:
        source = self.folder / "checkpoint"
        BY_NAME["llama_reward"].write(source)
        change(source)
        with pytest.raises(SystemExit, match=reason):
            self.export(str(source), "--output", str(self.folder / "model"))

    def test_a_tensor_without_a_place(self) -> None:
        def add(source: Path) -> None:
            arrays = load_file(source / "model.safetensors")
            extra = {"model.layers.0.mystery.weight": np.ones(3, np.float32)}
            save_file({**arrays, **extra}, source / "model.safetensors")

        self.refused_folder("1 tensors have no place in a llama: model.layers.0.mystery.weight", add)

    def test_a_tensor_of_another_shape(self) -> None:
        def change(source: Path) -> None:
            arrays = load_file(source / "model.safetensors")
            arrays["score.weight"] = np.ones((2, 32), np.float32)
            save_file(arrays, source / "model.safetensors")

        self.refused_folder("score.weight is \\[2, 32\\], by config.json it should be", change)

    def test_another_models_tokenizer(self) -> None:
        def change(source: Path) -> None:
            raw = json.loads((source / "tokenizer.json").read_text())
            raw["model"]["vocab"]["a"] = 5000  # beyond the 320 embeddings
            (source / "tokenizer.json").write_text(json.dumps(raw))

        self.refused_folder("token 5000, and the embeddings end at 319", change)

    @pytest.mark.parametrize(
        ("file", "reason"),
        [
            ("config.json", r"no config\.json"),
            ("model.safetensors", "lacks"),
            ("tokenizer.json", r"no tokenizer\.json"),
        ],
    )
    def test_missing_files(self, file: str, reason: str) -> None:
        source = self.folder / "checkpoint"
        BY_NAME["llama_reward"].write(source)
        (source / file).unlink()
        with pytest.raises(SystemExit, match=reason):
            self.export(str(source), "--output", str(self.folder / "model"))

    def test_several_outputs_need_a_head(self) -> None:
        with pytest.raises(SystemExit, match="say which head reads them"):
            self.export_checkpoint(BY_NAME["mistral_ensemble"])


class TestGguf(Folder):
    """A GGUF file gives the checkpoint that it was made of."""

    @pytest.fixture(autouse=True)
    def _file(self, _folder: None) -> None:
        self.source = RandomCheckpoint("gguf", {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, seed=6)
        self.config: DecoderConfig = parse_config(self.source.full_config)
        self.path = self.folder / "tiny.gguf"
        self.stored = self.write()

    def write(self, pre: str | None = "gpt-2", adds: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
        """Writes the file as llama.cpp's converter does; returns the weights as they survive it."""
        writer = GGUFWriter(self.path, "llama")
        c = self.config
        writer.add_block_count(c.layers)
        writer.add_context_length(c.context)
        writer.add_embedding_length(c.hidden)
        writer.add_feed_forward_length(c.intermediate)
        writer.add_head_count(c.heads)
        writer.add_head_count_kv(c.kv_heads)
        writer.add_layer_norm_rms_eps(c.norm_epsilon)
        writer.add_rope_freq_base(c.rope_theta)
        vocabulary = tokenizer().get_vocab()
        tokens = sorted(vocabulary, key=vocabulary.__getitem__)
        tokens += ["ab", *(f"<unused{index}>" for index in range(c.vocabulary - len(tokens) - 1))]
        writer.add_tokenizer_model("gpt2")
        if pre is not None:
            writer.add_tokenizer_pre(pre)
        for kind in adds:
            writer.add_bool(f"tokenizer.ggml.add_{kind}_token", True)
        writer.add_token_list(tokens)
        writer.add_token_types([3 if token in SPECIAL or "unused" in token else 1 for token in tokens])
        writer.add_token_merges(["a b"])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_chat_template(TEMPLATE)
        to_gguf = {value: key for key, value in {**TOP_NAMES, **LAYER_NAMES}.items()}
        stored = {}
        for name, value in self.source.weights().items():
            stem = name.removesuffix(".weight")
            prefix = ""
            if stem.startswith("model.layers."):
                _, _, layer, stem = stem.split(".", 3)
                prefix = f"blk.{layer}."
            heads = {"self_attn.q_proj": c.heads, "self_attn.k_proj": c.kv_heads}.get(stem)
            type_ = GGMLQuantizationType.F32 if value.ndim == 1 else GGMLQuantizationType.Q8_0
            if value.shape[-1] % 32:
                type_ = GGMLQuantizationType.F16 if value.ndim == 2 else type_
            interleaved = value
            if heads:
                # llama.cpp rotates neighbours: i and i + half of a head become 2i and 2i + 1.
                halves = value.reshape(heads, 2, -1, value.shape[1])
                interleaved = np.ascontiguousarray(halves.swapaxes(1, 2).reshape(value.shape))
            packed = quantize(interleaved, type_)
            writer.add_tensor(f"{prefix}{to_gguf[stem]}.weight", packed, raw_dtype=type_)
            widened = dequantize(packed, type_).reshape(value.shape).astype(np.float32)
            if heads:
                pairs = widened.reshape(heads, -1, 2, value.shape[1])
                widened = pairs.swapaxes(1, 2).reshape(value.shape)
            stored[name] = widened
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return stored

    def test_scores_are_those_of_the_stored_weights(self) -> None:
        output = self.folder / "model"
        self.export(str(self.path), "--output", str(output))
        ids = RECORDED["texts"][2]
        logits, _ = PrefixSession(output / "model.onnx").run("logits", ids, [len(ids) - 1])
        wanted = Reference(self.config, ArrayWeights(self.stored)).logits(ids)[-1]
        self.assert_close(logits[0], wanted)
        manifest = tomllib.loads((output / "model.toml").read_text())
        assert manifest["text"]["bos_token"] == "<s>"

    def test_configuration(self) -> None:
        assert read_gguf(self.path).config.rope_theta == self.config.rope_theta
        assert read_gguf(self.path).config.kv_heads == self.config.kv_heads
        assert read_gguf(self.path).chat_template == TEMPLATE

    def test_a_text_is_put_between_the_tokens_that_the_file_names(self) -> None:
        def ids() -> list[int]:
            return Tokenizer.from_str(json.dumps(read_gguf(self.path).tokenizer)).encode("ab").ids

        bare = ids()
        self.write(adds=("bos",))
        assert ids() == [1, *bare]
        self.write(adds=("bos", "eos"))
        assert ids() == [1, *bare, 2]

    def test_words_of_no_known_rule_are_refused(self) -> None:
        self.write(pre=None)
        with pytest.raises(Unsupported, match="the rule None"):
            read_gguf(self.path)
