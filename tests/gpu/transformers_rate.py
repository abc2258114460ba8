"""How many tokens a second PyTorch Transformers computes: the same shape in fp16, padded batches of 32.

    python3 transformers_rate.py workload.jsonl

Its weights are random: they decide no kernel's speed. Prints JSON.
"""

from __future__ import annotations

import json
import sys
import time

BATCH = 32
ROUNDS = 3


def main() -> None:
    import torch
    import transformers

    with open(sys.argv[1]) as stream:
        samples = [json.loads(line)["ids"] for line in stream]
    config = transformers.BertConfig(
        vocab_size=30_522,
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=1536,
        num_labels=1,
    )
    model = transformers.BertForSequenceClassification(config).half().cuda().eval()
    batches = []
    for start in range(0, len(samples), BATCH):
        rows = samples[start : start + BATCH]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        batches.append((ids.pin_memory(), mask.pin_memory()))

    def run() -> float:
        torch.cuda.synchronize()
        started = time.perf_counter()
        with torch.inference_mode():
            for ids, mask in batches:
                logits = model(input_ids=ids.cuda(), attention_mask=mask.cuda()).logits
                logits.float().cpu()
        return time.perf_counter() - started

    run()
    seconds = sorted(run() for _ in range(ROUNDS))[ROUNDS // 2]
    print(
        json.dumps(
            {
                "tokens_per_second": sum(map(len, samples)) / seconds,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
