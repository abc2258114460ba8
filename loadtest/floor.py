"""Best-of-N beside what its products take at the processor's peak.

    python -m loadtest.floor [--rounds 15] [--repository .karat/loadtest/llama]

In turns, one request of 16 candidates of 32 tokens behind a fresh prompt of
1,024, and one large matrix product in single precision by NumPy on all cores:
its rate is the peak of that moment. The floor is what the products of a plain
model would take at that rate, each token computed once: those of all its layers
with weights, though karat leaves out what nobody reads of the last, and those
of attention with what a token sees. Told are the medians.

`random_llama.py` writes the checkpoint. Needs a quiet machine.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from functools import partial
from pathlib import Path

import numpy as np

from loadtest import servers
from loadtest.random_llama import CONFIGURATION
from loadtest.vllm import MODEL, REST, SCRATCH, SHAPES, Shape, scores, seconds

# Rows and columns of the product that tells the peak, and how often it is computed.
SIZE, TIMES = 2048, 6


def operations(shape: Shape) -> float:
    """The floating-point operations of a shape's products: each token's with all weights, and with what it sees."""
    hidden, layers = CONFIGURATION["hidden_size"], CONFIGURATION["num_hidden_layers"]
    kept = CONFIGURATION["num_key_value_heads"] * CONFIGURATION["head_dim"]
    weights = layers * (2 * hidden * hidden + 2 * hidden * kept + 3 * hidden * CONFIGURATION["intermediate_size"])
    own = shape.candidates * shape.response
    tokens = shape.prompt + own
    seen = shape.prompt**2 / 2 + own * (shape.prompt + shape.response / 2)
    return 2.0 * weights * tokens + 4.0 * layers * hidden * seen


def peak(matrix: np.ndarray) -> float:
    """Floating-point operations a second of the fastest of some products."""
    return 2.0 * SIZE**3 / min(seconds(lambda: matrix @ matrix) for _ in range(TIMES))


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Measure Best-of-N beside the peak of matrix products.")
    parser.add_argument("--server", type=Path, default=Path("target/release/karat"))
    parser.add_argument("--repository", type=Path, default=SCRATCH / "llama")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()

    generator = random.Random(time.time_ns())
    matrix = np.random.default_rng(0).random((SIZE, SIZE), dtype=np.float32)
    shape = SHAPES[0]
    rounds: list[tuple[float, float, float]] = []
    with servers.karat(arguments.server, arguments.repository, MODEL, SCRATCH / "logs", "--cache-mb", "0") as server:
        scores(server, shape, shape.samples(generator))
        for _ in range(arguments.rounds):
            samples = shape.samples(generator)
            time.sleep(REST / 10)
            before = peak(matrix)
            time.sleep(REST / 10)
            taken = seconds(partial(scores, server, shape, samples))
            rate = (before + peak(matrix)) / 2
            rounds.append((taken, rate / 1e9, taken * rate / operations(shape)))
    taken, rate, ratio = (statistics.median(column) for column in zip(*rounds, strict=True))
    lowest, highest = (pick(ratio for *_, ratio in rounds) for pick in (min, max))
    print(f"{shape.name}: {taken:.3f} s; the peak is {rate:.0f} GFLOP/s")
    print(f"{ratio:.2f} times the floor, {lowest:.2f} to {highest:.2f}")


if __name__ == "__main__":
    main()
