"""Records what Transformers makes of the random checkpoints: `python -m tests.exporter.record`.

Needs torch and transformers, which nothing else here does: install them into an environment of their own, beside
numpy, onnx, safetensors and tokenizers. Recorded with torch 2.11.0 and transformers 4.57.1 on a CPU, in float32.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from tests.exporter.checkpoints import CHECKPOINTS, RandomCheckpoint, texts
from tools.metrics import write_json

FIXTURE = Path(__file__).parent / "transformers.json"


def rounded(values: torch.Tensor) -> Any:
    """Nested lists of values with the digits that float32 tells apart."""
    array = values.detach().to(torch.float32).numpy()
    return np.vectorize(lambda value: float(f"{value:.8g}"), otypes=[float])(array).tolist()


def record(checkpoint: RandomCheckpoint, folder: Path) -> dict[str, Any]:
    """One checkpoint's outputs for every text: what its own class answers, and what a head reads at each token."""
    checkpoint.write(folder)
    kind = getattr(transformers, checkpoint.config["architectures"][0])
    model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    cases = []
    for ids in texts():
        tokens = torch.tensor([ids])
        with torch.no_grad():
            answer = model(input_ids=tokens).logits[0]
            hidden = model.model(input_ids=tokens).last_hidden_state[0]
        case: dict[str, Any] = {"last_hidden": rounded(hidden[-1])}
        if hasattr(model, "lm_head"):
            following = torch.log_softmax(answer.double(), dim=-1)[:-1]
            chosen = following.gather(1, tokens[0, 1:, None])[:, 0]
            case |= {"next_token_log_probabilities": rounded(chosen), "last_logits": rounded(answer[-1])}
        else:
            with torch.no_grad():
                case |= {"answer": rounded(answer), "scores": rounded(model.score(hidden))}
        cases.append(case)
    return {"weights": checkpoint.digest(), "cases": cases}


def main() -> None:
    """Writes the fixture."""
    with tempfile.TemporaryDirectory() as scratch:
        found = {item.name: record(item, Path(scratch) / item.name) for item in CHECKPOINTS}
    write_json(FIXTURE, {"texts": texts(), **found})


if __name__ == "__main__":
    main()
