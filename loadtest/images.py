"""How many images a second karat rates, beside FastAPI with Transformers and Pillow, on one checkpoint.

Images from 224 x 224 to 4000 x 3000, one in eight a PNG and the others JPEG, eight for each prompt, in a random order;
closed loop. All servers get the same requests in turns, each round in another order and with images and prompts that no
round had before, and their scores are compared first. karat runs without its cache, and with it as by default, when it
computes each prompt once for its eight images. A ratio is the median of the rounds' ratios. The peer runs as `PEERS`
says; the fastest of each round is what karat is held to. Each round also times Transformers' model by itself, without a
server and on images that are prepared: how much of a server's time is the model's tells what any server can win.

    .venv/bin/python -m loadtest.images --python PYTHON    # one with torch, transformers, Pillow, fastapi and uvicorn
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import re
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

from loadtest.machine import process_seconds
from tools.server_process import answers, free_address, running

ROOT = Path(__file__).parent.parent
SIZES = [(224, 224), (512, 512), (640, 480), (300, 900), (1024, 768), (1280, 960), (1920, 1080), (4000, 3000)]
# Of every so many images these are PNG, as models that draw write them: 512 x 512 and 1024 x 768.
PNG = [16, [1, 12]]
TOLERANCE = 1e-3
COMPARED = 32
ALONE = "the model alone"
KARAT = "karat without its cache"
KNOWING = "karat"
# What a thread of karat's does with an image, by the metric of its time.
STAGES = {
    "decoding": "karat_image_decode_seconds",
    "resizing": "karat_image_resize_seconds",
    "passes": "karat_forward_pass_seconds",
}
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


def draw(python: str, folder: Path, count: int) -> list[bytes]:
    """Files of mixed sizes."""
    given = json.dumps([count, SIZES, PNG, 5]).encode()
    subprocess.run([python, "-c", DRAW, str(folder)], input=given, check=True)
    return [file.read_bytes() for file in sorted(folder.iterdir())]


def post(url: str, body: bytes) -> dict[str, Any]:
    """A reply as JSON."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - a server of this run
    with urllib.request.urlopen(request) as reply:  # noqa: S310
        found: dict[str, Any] = json.load(reply)
        return found


Asked = list[tuple[str, str]]
"""Prompts with their images in base64."""


def asked(images: list[bytes], number: int) -> Asked:
    """The requests of a round: in a random order, with images and prompts of its own."""
    order = list(range(len(images)))
    random.Random(number).shuffle(order)
    # What stands behind a file's end changes no pixel, and no cache has seen it.
    own = f"round {number}".encode()
    first = 40 * number
    return [
        (f"w{first + place // 8} w{first + place // 8 + 1} w7", base64.b64encode(images[place] + own).decode())
        for place in order
    ]


@dataclass(frozen=True)
class Contender:
    """A server, and how a request is written in its words."""

    name: str
    url: str
    body: Callable[[str, str], bytes]
    process: int

    def rate(self, requests: Asked, clients: int) -> float:
        """Images a second while so many clients wait for their replies one by one."""
        bodies = [self.body(*one) for one in requests]
        started = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(lambda body: post(self.url, body), bodies))
        return len(bodies) / (time.perf_counter() - started)

    def scores(self, requests: Asked) -> list[float]:
        """What it gives, one by one."""
        replies = [post(self.url, self.body(*one)) for one in requests]
        return [reply["score"] if "score" in reply else reply["results"][0]["reward"] for reply in replies]

    def spent(self) -> dict[str, float]:
        """Of karat, the seconds of its processor and of what its threads do with images."""
        address = self.url.removesuffix("/v1/score")
        with urllib.request.urlopen(f"{address}/metrics") as reply:  # noqa: S310 - a server of this run
            text = reply.read().decode()
        found = {}
        for stage, metric in STAGES.items():
            values = re.findall(rf"^{metric}_sum{{.*}} (\S+)$", text, re.MULTILINE)
            found[stage] = sum(map(float, values))
        return {"processor": process_seconds(self.process), **found}


def karat_body(prompt: str, image: str) -> bytes:
    """What karat is sent."""
    return json.dumps(
        {"model": "clip", "inputs": [{"prompt": prompt, "image": f"data:image/*;base64,{image}"}]}
    ).encode()


def peer_body(prompt: str, image: str) -> bytes:
    """What the others are sent."""
    return json.dumps({"prompt": prompt, "image": image}).encode()


@dataclass(frozen=True)
class Measurement:
    """What is measured, and how long."""

    karats: list[Contender]
    peers: list[Contender]
    alone: Callable[[], float]
    """Images a second of the model by itself."""
    images: list[bytes]
    rounds: int
    clients: int

    def run(self) -> None:
        """Prints what every round gives, the ratios, and where karat's time goes."""
        shuffled = random.Random(1)
        known = [*(peer.name for peer in self.peers), ALONE]
        ratios: dict[tuple[str, str], list[float]] = {}
        before = [karat.spent() for karat in self.karats]
        for number in range(1, self.rounds + 1):
            requests = asked(self.images, number)
            order = [*self.karats, *self.peers]
            shuffled.shuffle(order)
            rates = {contender.name: contender.rate(requests, self.clients) for contender in order}
            rates[ALONE] = self.alone()
            told = ", ".join(f"{name} {rate:.1f}" for name, rate in rates.items())
            print(f"round {number}, images a second: {told}")
            rates["the fastest"] = max(rates[peer.name] for peer in self.peers)
            for karat in self.karats:
                for name in [*known, "the fastest"]:
                    ratios.setdefault((karat.name, name), []).append(rates[karat.name] / rates[name])
        for (own, name), kept in ratios.items():
            print(f"{own} over {name}: {statistics.median(kept):.2f} ({min(kept):.2f}–{max(kept):.2f})")
        for karat, earlier in zip(self.karats, before, strict=True):
            self._tell(karat, earlier)

    def _tell(self, karat: Contender, earlier: dict[str, float]) -> None:
        spent = {stage: seconds - earlier[stage] for stage, seconds in karat.spent().items()}
        each = 1000 * spent.pop("processor") / (self.rounds * len(self.images))
        shares = ", ".join(f"{stage} {seconds / sum(spent.values()):.0%}" for stage, seconds in spent.items())
        print(f"{karat.name}: {each:.0f} ms of a processor for each image; of its threads' time {shares}")


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

        def start(command: list[str], address: str, health: str) -> int:
            ready = f"http://{address}{health}"
            server = servers.enter_context(running(command, lambda: answers(ready), log, folder=ROOT))
            return server.pid

        karats, peers = [], []
        for name, options in {KARAT: ["--cache-mb", "0"], KNOWING: []}.items():
            address = free_address()
            command = [str(given.karat), "serve", "--model", str(model), "--listen", address, *options]
            # All of the clients' images may wait, on however slow a machine.
            process = start([*command, "--queue-seconds", "600"], address, "/health/ready")
            karats.append(Contender(name, f"http://{address}/v1/score", karat_body, process))
        for name, options in PEERS.items():
            address = free_address()
            command = [*peer, "--model", str(model), "--port", address.rsplit(":", 1)[1], *options]
            peers.append(Contender(name, f"http://{address}/score", peer_body, start(command, address, "/health")))
        compared = asked(images, 0)[:COMPARED]
        first, *others = (contender.scores(compared) for contender in [*karats, *peers])
        for other, scores in zip([*karats, *peers][1:], others, strict=True):
            worst = max(abs(mine - its) for mine, its in zip(first, scores, strict=True))
            print(f"largest difference from {other.name}: {worst:.2e}")
            if worst > TOLERANCE:
                raise SystemExit("the servers give different scores")

        def alone() -> float:
            told = [*peer, "--model", str(model), "--alone", str(given.images)]
            return float(subprocess.run(told, check=True, cwd=ROOT, capture_output=True).stdout)

        Measurement(karats, peers, alone, images, given.rounds, given.clients).run()


if __name__ == "__main__":
    main()
