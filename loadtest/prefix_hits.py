"""How much of prompts is found again by three replicas behind a balancer, against one replica and against chance.

    make prefix-hits REQUESTS=20000
    .venv/bin/python -m loadtest.prefix_hits --server target/debug/karat --requests 2000

The same requests are sent three times, each time to servers that have just begun: to one karat; to three behind
HAProxy with the configuration in `deploy/`, which sends equal prompts to equal replicas; and to the same three in
turns. Each request has candidates of one of some hundred prompts. Scores aren't cached, and what a decoder computed of
prompts is: the model is the tests' tiny decoder. Fails where the hash finds much less again than one replica does.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from karat_client import Client
from loadtest.rolling import Replica, balancer
from loadtest.tiny import GRAPHS, tokenizer

ROOT = Path(__file__).parent.parent
MODEL = "decoder"
MANIFEST = """\
head = { multi = { members = 2 } }
[graph]
file = "tiny_decoder_scores.onnx"
[text]
render = { jinja = "{% for m in messages %}{{ m['content'] }} {% endfor %}" }
special_tokens = false
pad_token = "[PAD]"
max_tokens = 2048
"""
PROMPTS = 300
PROMPT_WORDS = 120
CANDIDATES = 4
FLAGS = ("--cache-mb", "0", "--prefix-cache-mb", "512", "--queue-seconds", "0")
# How the balancer chooses, and how it would without prompts.
BY_PROMPT = "balance hdr(X-Karat-Prefix)"
IN_TURNS = "balance roundrobin"


def group(number: int) -> tuple[str, list[str]]:
    """A request's prompt, which others have as well, and candidates that nobody else has."""
    chance = random.Random(number)
    prompt = random.Random(chance.randrange(PROMPTS))
    words = [str(prompt.randrange(10, 300)) for _ in range(PROMPT_WORDS)]
    candidates = [
        f"{chance.randrange(10, 300)} {chance.randrange(10, 300)} {10 + place}" for place in range(CANDIDATES)
    ]
    return " ".join(words), candidates


@dataclass(frozen=True)
class Found:
    """What became of the requests."""

    hits: float
    computed: float
    seconds: float


def measure(url: str, replicas: list[Replica], requests: int, clients: int) -> Found:
    """Sends the requests; the share of samples whose prompt was found, and of tokens that were computed."""
    begun = time.monotonic()
    with Client(url, MODEL) as client, ThreadPoolExecutor(clients) as pool:

        def ask(number: int) -> int:
            prompt, candidates = group(number)
            return len(client.score(prompts=prompt, responses=candidates).rewards)

        samples = sum(pool.map(ask, range(requests)))
    seconds = time.monotonic() - begun

    def counted(metric: str) -> float:
        return sum(replica.counted(f"karat_prefix_{metric}_total") for replica in replicas)

    return Found(counted("hits") / samples, counted("computed_tokens") / max(1.0, counted("tokens")), seconds)


@contextmanager
def started(count: int, executable: Path, models: Path, folder: Path) -> Iterator[list[Replica]]:
    """So many replicas that know nothing yet."""
    with ExitStack() as stack:
        replicas = [Replica(executable, models, folder / f"{number}.log", more=FLAGS) for number in range(count)]
        for replica in replicas:
            stack.callback(replica.end)
            replica.start()
        yield replicas


def main() -> int:
    """Runs the command; 0 when three replicas find as much again as one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", type=Path, default=ROOT / "target/release/karat", help="the program")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--least", type=float, default=0.95, help="the least share of one replica's hits")
    options = parser.parse_args()
    if shutil.which("haproxy") is None:
        raise SystemExit("haproxy is not installed")
    found: dict[str, Found] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        models = folder / "models"
        (models / MODEL).mkdir(parents=True)
        (models / MODEL / "model.toml").write_text(MANIFEST)
        (models / MODEL / "tokenizer.json").write_text(tokenizer())
        shutil.copy(GRAPHS / "tiny_decoder_scores.onnx", models / MODEL)
        with started(1, options.server, models, folder) as replicas:
            found["one replica"] = measure(f"http://{replicas[0].address}", replicas, options.requests, options.clients)
        for name, changes in {"three, by prompt": {}, "three, in turns": {BY_PROMPT: IN_TURNS}}.items():
            with (
                started(3, options.server, models, folder) as replicas,
                balancer("haproxy", replicas, folder, changes) as url,
            ):
                found[name] = measure(url, replicas, options.requests, options.clients)
    print(f"{options.requests} requests of {CANDIDATES} candidates, {PROMPTS} prompts of {PROMPT_WORDS} tokens")
    print(f"{'':18} {'prompts found':>14} {'tokens computed':>16} {'seconds':>8}")
    for name, one in found.items():
        print(f"{name:18} {one.hits:14.1%} {one.computed:16.1%} {one.seconds:8.1f}")
    share = found["three, by prompt"].hits / max(found["one replica"].hits, 1e-9)
    print(f"three replicas find {share:.1%} of what one finds")
    return int(share < options.least)


if __name__ == "__main__":
    sys.exit(main())
