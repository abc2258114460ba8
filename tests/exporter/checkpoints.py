"""Small random checkpoints in the folders that Transformers writes, one for each thing that can differ."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tools.decoder.config import parse_config
from tools.decoder.random_weights import random_weights
from tools.decoder.weights import INDEX

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 320,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "pad_token_id": 0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
TEMPLATE = "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{{ eos_token }}{% endfor %}"
SPECIAL = ("<pad>", "<s>", "</s>", "<step>")


@dataclass(frozen=True)
class RandomCheckpoint:
    """A name, what its `config.json` says beyond `SMALL`, and how its weights are stored."""

    name: str
    config: dict[str, Any]
    seed: int
    bfloat16: bool = False
    shards: int = 1

    @property
    def full_config(self) -> dict[str, Any]:
        """The whole of `config.json`."""
        return {**SMALL, **self.config}

    def weights(self) -> dict[str, np.ndarray]:
        """The tensors, float32; of what is stored as bfloat16, the values that survive it."""
        arrays = random_weights(parse_config(self.full_config), self.seed)
        if self.bfloat16:
            arrays = {name: _upper_half(value) for name, value in arrays.items()}
        return arrays

    def digest(self) -> str:
        """SHA-256 of all weights, by which a fixture knows that they are the ones it was made with."""
        digest = hashlib.sha256()
        for name, value in sorted(self.weights().items()):
            digest.update(name.encode() + value.tobytes())
        return digest.hexdigest()

    def write(self, folder: Path) -> None:
        """Writes `config.json`, weights and tokenizer into `folder`."""
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(self.full_config))
        self._write_weights(folder)
        tokenizer().save(str(folder / "tokenizer.json"))
        settings = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": "<pad>"}
        (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": TEMPLATE}))

    def _write_weights(self, folder: Path) -> None:
        arrays = self.weights()
        if self.bfloat16:
            write_bfloat16(arrays, folder / "model.safetensors")
            return
        if self.shards == 1:
            save_file(arrays, folder / "model.safetensors")
            return
        places = {}
        for shard in range(self.shards):
            file = f"model-{shard + 1:05}-of-{self.shards:05}.safetensors"
            part = {name: arrays[name] for name in sorted(arrays)[shard :: self.shards]}
            save_file(part, folder / file)
            places.update(dict.fromkeys(part, file))
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))


CHECKPOINTS = (
    RandomCheckpoint(
        "llama_reward",
        {
            "model_type": "llama",
            "architectures": ["LlamaForSequenceClassification"],
            "id2label": {"0": "LABEL_0"},
            "rope_scaling": LLAMA3,
        },
        seed=1,
    ),
    RandomCheckpoint(
        "llama_with_biases",
        {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": True,
            "mlp_bias": True,
        },
        seed=2,
    ),
    RandomCheckpoint(
        "qwen2_process",
        {
            "model_type": "qwen2",
            "architectures": ["Qwen2ForTokenClassification"],
            "id2label": {"0": "bad", "1": "good"},
            "use_sliding_window": False,
            "sliding_window": 64,
        },
        seed=3,
        shards=2,
    ),
    RandomCheckpoint(
        "qwen3_language_model",
        {
            "model_type": "qwen3",
            "architectures": ["Qwen3ForCausalLM"],
            "head_dim": 16,
            "tie_word_embeddings": True,
        },
        seed=4,
        bfloat16=True,
    ),
    RandomCheckpoint(
        "mistral_ensemble",
        {
            "model_type": "mistral",
            "architectures": ["MistralForSequenceClassification"],
            "id2label": {"0": "a", "1": "b", "2": "c"},
            "sliding_window": None,
            "num_key_value_heads": 1,
        },
        seed=5,
    ),
)


def tokenizer() -> Tokenizer:
    """A byte-level tokenizer without merges: four special tokens, then the 256 bytes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *letters])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(SPECIAL))
    return made


def write_bfloat16(arrays: dict[str, np.ndarray], path: Path) -> None:
    """A safetensors file of bfloat16 tensors, which numpy itself has no type for."""
    header, body = {}, b""
    for name, value in arrays.items():
        raw = (value.view(np.uint32) >> 16).astype("<u2").tobytes()
        offsets = [len(body), len(body) + len(raw)]
        header[name] = {"dtype": "BF16", "shape": list(value.shape), "data_offsets": offsets}
        body += raw
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + body)


def texts() -> list[list[int]]:
    """Token ids, of which none is the padding: short ones and one beyond the context before scaling."""
    generator = np.random.default_rng(7)
    return [generator.integers(1, 320, length).tolist() for length in (1, 6, 40, 100)]


def _upper_half(value: np.ndarray) -> np.ndarray:
    return (value.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
