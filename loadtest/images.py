"""How many images a second karat rates, beside FastAPI with Transformers and Pillow, on one checkpoint.

Images from 224 x 224 to 4000 x 3000, one in eight a PNG and the others JPEG, eight for each prompt, in a random order;
closed loop. All servers get the same requests in turns, each round in another order, karat without its cache, and their
scores are compared first. A ratio is the median of the rounds' ratios. The peer runs as `PEERS` says; the fastest of
each round is what karat is held to. Each round also times Transformers' model by itself, without a server and on images
that are prepared: how much of a server's time is the model's tells what any server can win.

    .venv/bin/python -m loadtest.images --python PYTHON    # one with torch, transformers, Pillow, fastapi and uvicorn
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.server_process import answers, free_address, running

ROOT = Path(__file__).parent.parent
SIZES = [(224, 224), (512, 512), (640, 480), (300, 900), (1024, 768), (1280, 960), (1920, 1080), (4000, 3000)]
# Of every so many images these are PNG, as models that draw write them: 512 x 512 and 1024 x 768.
PNG = [16, [1, 12]]
TOLERANCE = 1e-3
COMPARED = 32
ALONE = "the model alone"
# Ways in which such servers are written, and the options of `peers/images_server.py` that stand for them.
PEERS = {
    "batches of 8": ["--max-batch", "8"],
    "prepared in threads, batches of 8": ["--max-batch", "8", "--threads"],
    "no batches": ["--max-batch", "1"],
}
# Photographs are smooth: an image of few pixels, made larger.
DRAW = """
import json, os, random, sys
from PIL import Image
count, sizes, (period, png), seed = json.load(sys.stdin)
random.seed(seed)
folder = sys.argv[1]
for number in range(count):
    small = Image.frombytes("RGB", (16, 12), random.randbytes(16 * 12 * 3))
    kind = "PNG" if number % period in png else "JPEG"
    small.resize(sizes[number % len(sizes)], 3).save(os.path.join(folder, f"{number:04}"), kind, quality=85)
"""


def draw(python: str, folder: Path, count: int) -> list[str]:
    """Files of mixed sizes, in base64."""
    given = json.dumps([count, SIZES, PNG, 5]).encode()
    subprocess.run([python, "-c", DRAW, str(folder)], input=given, check=True)
    return [base64.b64encode(file.read_bytes()).decode() for file in sorted(folder.iterdir())]


def post(url: str, body: bytes) -> dict[str, Any]:
    """A reply as JSON."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - a server of this run
    with urllib.request.urlopen(request) as reply:  # noqa: S310
        found: dict[str, Any] = json.load(reply)
        return found


@dataclass(frozen=True)
class Contender:
    """A server, and the requests in its own words."""

    name: str
    url: str
    bodies: list[bytes]

    def rate(self, clients: int) -> float:
        """Images a second while so many clients wait for their replies one by one."""
        started = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(lambda body: post(self.url, body), self.bodies))
        return len(self.bodies) / (time.perf_counter() - started)

    def scores(self, count: int) -> list[float]:
        """What it gives of the first requests, one by one."""
        replies = [post(self.url, body) for body in self.bodies[:count]]
        return [reply["score"] if "score" in reply else reply["results"][0]["reward"] for reply in replies]


def karat_body(prompt: str, image: str) -> bytes:
    """What karat is sent."""
    return json.dumps(
        {"model": "clip", "inputs": [{"prompt": prompt, "image": f"data:image/*;base64,{image}"}]}
    ).encode()


def peer_body(prompt: str, image: str) -> bytes:
    """What the others are sent."""
    return json.dumps({"prompt": prompt, "image": image}).encode()


def measure(karat: Contender, peers: list[Contender], alone: Callable[[], float], rounds: int, clients: int) -> None:
    """Prints what every round gives, and the ratios."""
    shuffled = random.Random(1)
    known = [*(peer.name for peer in peers), ALONE]
    ratios: dict[str, list[float]] = {name: [] for name in [*known, "the fastest"]}
    for number in range(rounds):
        order = [karat, *peers]
        shuffled.shuffle(order)
        rates = {contender.name: contender.rate(clients) for contender in order}
        rates[ALONE] = alone()
        rates["the fastest"] = max(rates[peer.name] for peer in peers)
        for name, kept in ratios.items():
            kept.append(rates[karat.name] / rates[name])
        told = ", ".join(f"{name} {rates[name]:.1f}" for name in [karat.name, *known])
        print(f"round {number + 1}, images a second: {told}")
    for name, kept in ratios.items():
        print(f"karat over {name}: {statistics.median(kept):.2f} ({min(kept):.2f}–{max(kept):.2f})")


def main() -> None:
    """Prints a line for each round, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", required=True)
    parser.add_argument("--karat", type=Path, default=ROOT / "target/release/karat")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryFile() as log, ExitStack() as servers:
        model, files = Path(made) / "clip", Path(made) / "images"
        files.mkdir()
        peer = [given.python, "-m", "loadtest.peers.images_server"]
        subprocess.run([*peer, "--write", str(model)], check=True, cwd=ROOT)
        images = draw(given.python, files, given.images)
        order = list(range(len(images)))
        random.Random(3).shuffle(order)
        asked = [(f"w{number // 8} w{number // 8 + 1} w7", images[number]) for number in order]

        def start(command: list[str], address: str, health: str) -> None:
            ready = f"http://{address}{health}"
            servers.enter_context(running(command, lambda: answers(ready), log, folder=ROOT))

        address = free_address()
        command = [str(given.karat), "serve", "--model", str(model), "--listen", address, "--cache-mb", "0"]
        # All of the clients' images may wait, on however slow a machine.
        command += ["--queue-seconds", "600"]
        start(command, address, "/health/ready")
        karat = Contender("karat", f"http://{address}/v1/score", [karat_body(*one) for one in asked])
        peers = []
        for name, options in PEERS.items():
            address = free_address()
            start([*peer, "--model", str(model), "--port", address.rsplit(":", 1)[1], *options], address, "/health")
            peers.append(Contender(name, f"http://{address}/score", [peer_body(*one) for one in asked]))
        ours = karat.scores(COMPARED)
        for other in peers:
            pairs = zip(ours, other.scores(COMPARED), strict=True)
            worst = max(abs(mine - its) for mine, its in pairs)
            print(f"largest difference from {other.name}: {worst:.2e}")
            if worst > TOLERANCE:
                raise SystemExit("the servers give different scores")

        def alone() -> float:
            told = [*peer, "--model", str(model), "--alone", str(given.images)]
            return float(subprocess.run(told, check=True, cwd=ROOT, capture_output=True).stdout)

        measure(karat, peers, alone, given.rounds, given.clients)


if __name__ == "__main__":
    main()
