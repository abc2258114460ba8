"""How many tokens a second PyTorch Transformers computes of the same shape, and how fast the GPU's products are.

    python3 peer.py --config config.json --workload workload.jsonl --device cuda --seconds 5 gemm sorted arrival

In 16 bits on a GPU: encoders in float16, decoders in bfloat16, in padded batches of 32, sorted by length or in order of
arrival. Its weights are random: they decide no kernel's speed. Prints JSON. It runs by itself, with nothing of karat's.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

BATCH = 32
MOST_ROUNDS = 5
# The product by whose speed a GPU's ceiling is told.
GEMM = (8192, 4096, 14_336)
GEMM_ROUNDS = 30


def gemm(torch: Any, device: str) -> float:
    """Floating-point operations a second of a large product in bfloat16."""
    rows, inner, columns = GEMM if device == "cuda" else (64, 64, 64)
    left = torch.randn(rows, inner, device=device, dtype=torch.bfloat16)
    right = torch.randn(inner, columns, device=device, dtype=torch.bfloat16)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    for _ in range(3):
        left @ right
    wait()
    started = time.perf_counter()
    for _ in range(GEMM_ROUNDS):
        left @ right
    wait()
    return 2.0 * rows * inner * columns * GEMM_ROUNDS / (time.perf_counter() - started)


def build(torch: Any, config: Path, device: str) -> Any:
    """The model, made where it runs."""
    import transformers

    told = json.loads(config.read_text())
    known = transformers.AutoConfig.for_model(**told)
    decoder = told["model_type"] == "llama"
    dtype = torch.float32 if device == "cpu" else torch.bfloat16 if decoder else torch.float16
    torch.set_default_dtype(dtype)
    with torch.device(device):
        model = transformers.AutoModelForSequenceClassification.from_config(known)
    torch.set_default_dtype(torch.float32)
    return model.to(dtype).eval()


def batches(torch: Any, samples: Sequence[list[int]], pad: int, device: str) -> list[tuple[Any, Any]]:
    """Padded rows, 32 at a time, in the processor's memory."""
    found = []
    for start in range(0, len(samples), BATCH):
        rows = samples[start : start + BATCH]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        found.append((ids.pin_memory(), mask.pin_memory()) if device == "cuda" else (ids, mask))
    return found


def rate(torch: Any, model: Any, rows: list[tuple[Any, Any]], tokens: int, device: str, seconds: float) -> float:
    """Tokens a second: the best of the rounds that fit the time, after one batch of each end."""
    options = {"use_cache": False} if model.config.model_type == "llama" else {}

    def run(batch: tuple[Any, Any]) -> None:
        ids, mask = (part.to(device) for part in batch)
        model(input_ids=ids, attention_mask=mask, **options).logits.float().cpu()

    with torch.inference_mode():
        for batch in (rows[0], rows[-1]):
            run(batch)
        taken: list[float] = []
        while len(taken) < MOST_ROUNDS and sum(taken) < seconds:
            started = time.perf_counter()
            for batch in rows:
                run(batch)
            taken.append(time.perf_counter() - started)
    return tokens / min(taken)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Measure Transformers.")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--workload", type=Path, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each rate")
    parser.add_argument("jobs", nargs="+", choices=["gemm", "sorted", "arrival"])
    arguments = parser.parse_args()

    import torch
    import transformers

    results: dict[str, Any] = {"torch": torch.__version__, "transformers": transformers.__version__}
    with arguments.workload.open() as stream:
        samples = [json.loads(line)["ids"] for line in stream]
    tokens = sum(map(len, samples))
    orders: dict[str, Callable[[], list[list[int]]]] = {
        "sorted": lambda: sorted(samples, key=len, reverse=True),
        "arrival": lambda: samples,
    }
    if "gemm" in arguments.jobs:
        results["gemm"] = gemm(torch, arguments.device)
    wanted = [job for job in arguments.jobs if job in orders]
    if wanted:
        model = build(torch, arguments.config, arguments.device)
        pad = model.config.pad_token_id
        for job in wanted:
            rows = batches(torch, orders[job](), pad, arguments.device)
            results[job] = rate(torch, model, rows, tokens, arguments.device, arguments.seconds)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
