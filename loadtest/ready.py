"""Tells what it takes until a checkpoint is served: seconds, processor time and memory.

Writes a random classifier in bfloat16, a Qwen2 or (`--encoder`) a BERT, unless it is there already, serves it once
from the page cache, and prints what the server used until it was ready and what it holds then. `needed` is what serving
takes by the weights alone, in 32 bits: what the memory is to be compared with.

    .venv/bin/python -m loadtest.ready                      # 386 million parameters
    .venv/bin/python -m loadtest.ready --layers 4 --hidden 512 --intermediate 1408 --heads 8
    .venv/bin/python -m loadtest.ready --encoder --sessions 2 --hidden 768 --layers 12 --intermediate 3072 --heads 12
"""

from __future__ import annotations

import argparse
import json
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np

from loadtest.machine import process_seconds, resident_bytes
from tools.server_process import answers, free_address

SEED = 8
# Numbers are drawn once and repeated: what they are changes neither time nor memory.
DRAWN = 1 << 22


def shapes(arguments: argparse.Namespace) -> dict[str, tuple[int, ...]]:
    """Every tensor of the checkpoint by name."""
    return shapes_of_encoder(arguments) if arguments.encoder else shapes_of_decoder(arguments)


def shapes_of_encoder(arguments: argparse.Namespace) -> dict[str, tuple[int, ...]]:
    """Those of a BERT."""
    hidden, inner = arguments.hidden, arguments.intermediate
    embeddings = {"word": arguments.vocabulary, "position": arguments.max_tokens, "token_type": 2}
    tensors: dict[str, tuple[int, ...]] = {
        f"bert.embeddings.{what}_embeddings.weight": (rows, hidden) for what, rows in embeddings.items()
    }
    matrices = {"bert.pooler.dense": (hidden, hidden), "classifier": (1, hidden)}
    norms = ["bert.embeddings.LayerNorm"]
    for layer in range(arguments.layers):
        name = f"bert.encoder.layer.{layer}."
        squares = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
        matrices |= {name + square: (hidden, hidden) for square in squares}
        matrices |= {f"{name}intermediate.dense": (inner, hidden), f"{name}output.dense": (hidden, inner)}
        norms += [f"{name}attention.output.LayerNorm", f"{name}output.LayerNorm"]
    for name, shape in matrices.items():
        tensors |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name in norms:
        tensors |= {f"{name}.weight": (hidden,), f"{name}.bias": (hidden,)}
    return tensors


def shapes_of_decoder(arguments: argparse.Namespace) -> dict[str, tuple[int, ...]]:
    """Those of a Qwen2."""
    hidden, inner = arguments.hidden, arguments.intermediate
    keys = arguments.kv_heads * (hidden // arguments.heads)
    tensors: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (arguments.vocabulary, hidden)}
    for layer in range(arguments.layers):
        name = f"model.layers.{layer}."
        for part, rows in (("q", hidden), ("k", keys), ("v", keys)):
            tensors[f"{name}self_attn.{part}_proj.weight"] = (rows, hidden)
            tensors[f"{name}self_attn.{part}_proj.bias"] = (rows,)
        tensors[f"{name}self_attn.o_proj.weight"] = (hidden, hidden)
        for part in ("gate", "up"):
            tensors[f"{name}mlp.{part}_proj.weight"] = (inner, hidden)
        tensors[f"{name}mlp.down_proj.weight"] = (hidden, inner)
        tensors[f"{name}input_layernorm.weight"] = (hidden,)
        tensors[f"{name}post_attention_layernorm.weight"] = (hidden,)
    tensors["model.norm.weight"] = (hidden,)
    tensors["score.weight"] = (1, hidden)
    return tensors


def write_weights(tensors: dict[str, tuple[int, ...]], path: Path) -> None:
    """Writes random bfloat16 numbers, piece by piece: a file may be larger than the memory."""
    drawn = (np.random.default_rng(SEED).standard_normal(DRAWN) * 0.02).astype("<f4").view("<u4")
    piece = (drawn >> 16).astype("<u2").tobytes()
    header, offset = {}, 0
    for name, shape in tensors.items():
        length = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + length]}
        offset += length
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        while offset:
            offset -= file.write(piece[:offset])


def of_encoder(arguments: argparse.Namespace) -> dict[str, Any]:
    """What a BERT's configuration says beside its sizes."""
    return {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "max_position_embeddings": arguments.max_tokens,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
    }


def of_decoder(arguments: argparse.Namespace) -> dict[str, Any]:
    """What a Qwen2's configuration says beside its sizes."""
    return {
        "architectures": ["Qwen2ForSequenceClassification"],
        "model_type": "qwen2",
        "num_key_value_heads": arguments.kv_heads,
        "max_position_embeddings": 131_072,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
    }


def write_manifest(folder: Path, arguments: argparse.Namespace) -> None:
    """Asks for so many sessions; without that, what karat makes of the folder is served."""
    manifest = folder / "model.toml"
    manifest.unlink(missing_ok=True)
    if arguments.sessions is not None:
        render = "pair" if arguments.encoder else "raw"
        manifest.write_text(
            f'[graph]\ncheckpoint = "."\n\n[scheduling]\nsessions = {arguments.sessions}\n\n'
            f'[text]\nrender = "{render}"\nmax_tokens = {arguments.max_tokens}\n'
        )


def write_checkpoint(folder: Path, arguments: argparse.Namespace) -> None:
    """Writes configuration, tokenizer and weights."""
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {
        "hidden_size": arguments.hidden,
        "num_hidden_layers": arguments.layers,
        "num_attention_heads": arguments.heads,
        "intermediate_size": arguments.intermediate,
        "vocab_size": arguments.vocabulary,
        "num_labels": 1,
        "pad_token_id": 0,
        "torch_dtype": "bfloat16",
    }
    config |= of_encoder(arguments) if arguments.encoder else of_decoder(arguments)
    (folder / "config.json").write_text(json.dumps(config))
    words = {f"t{index}": index for index in range(arguments.vocabulary)}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "t0"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = {"model_max_length": arguments.max_tokens, "pad_token": "t0"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    write_weights(shapes(arguments), folder / "model.safetensors")


def peak_bytes(pid: int) -> int:
    """The most memory that a process ever held."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def measure(server: Path, repository: Path) -> dict[str, float]:
    """Serves the repository until it is ready."""
    address = free_address()
    command = [str(server), "serve", "--models", str(repository), "--listen", address, "--log", "warn", "--strict"]
    started = time.monotonic()
    with subprocess.Popen(command) as process:
        try:
            while not answers(f"http://{address}/health/ready"):
                if process.poll() is not None:
                    raise SystemExit("the server ended; its last line says why")
                time.sleep(0.02)
            ready = time.monotonic() - started
            return {
                "seconds": round(ready, 2),
                "processor_seconds": round(process_seconds(process.pid), 2),
                "peak_mb": peak_bytes(process.pid) >> 20,
                "steady_mb": resident_bytes(process.pid) >> 20,
            }
        finally:
            process.terminate()


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Measure what it takes until a checkpoint is served.")
    parser.add_argument("--server", type=Path, default=Path("target/release/karat"))
    parser.add_argument("--output", type=Path, default=Path(".karat/loadtest/ready"), help="where checkpoints are kept")
    parser.add_argument("--encoder", action="store_true", help="a BERT in place of a Qwen2")
    parser.add_argument("--sessions", type=int, help="how many share the weights; by default as many as karat chooses")
    for name, usual in (
        ("hidden", 896),
        ("layers", 24),
        ("heads", 14),
        ("kv-heads", 2),
        ("intermediate", 4864),
        ("vocabulary", 32_000),
        ("max-tokens", 2048),
    ):
        parser.add_argument(f"--{name}", type=int, default=usual)
    arguments = parser.parse_args()
    parameters = sum(int(np.prod(shape)) for shape in shapes(arguments).values())
    repository = (
        arguments.output / f"{'encoder-' * arguments.encoder}{parameters}-{arguments.layers}-{arguments.max_tokens}"
    )
    folder = repository / "random"
    if not (folder / "model.safetensors").is_file():
        write_checkpoint(folder, arguments)
    write_manifest(folder, arguments)
    # Costs that an earlier start measured would make this one shorter.
    (folder / "checkpoint.rows.calibration.json").unlink(missing_ok=True)
    with (folder / "model.safetensors").open("rb") as weights:
        while weights.read(1 << 24):
            pass
    found = measure(arguments.server, repository)
    print(json.dumps({"parameters": parameters, "needed_mb": parameters * 4 >> 20, **found}))


if __name__ == "__main__":
    main()
