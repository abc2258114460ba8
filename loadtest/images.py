"""How many images a second karat rates, beside FastAPI with Transformers and Pillow, on one checkpoint.

Images of mixed sizes, JPEG and PNG, eight for each prompt, in a random order; closed loop. Both servers get the same
requests in turns, karat without its cache, and their scores are compared first. A ratio is the median over the rounds.

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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.server_process import answers, free_address, running

ROOT = Path(__file__).parent.parent
SIZES = [(224, 224), (320, 240), (512, 512), (640, 480), (800, 600), (1024, 768), (1280, 960), (300, 900)]
TOLERANCE = 1e-3
# Photographs are smooth: an image of few pixels, made larger.
DRAW = """
import json, os, random, sys
from PIL import Image
count, sizes, seed = json.load(sys.stdin)
random.seed(seed)
folder = sys.argv[1]
for number in range(count):
    small = Image.frombytes("RGB", (16, 12), random.randbytes(16 * 12 * 3))
    kind = "PNG" if number % 4 == 0 else "JPEG"
    small.resize(sizes[number % len(sizes)], 3).save(os.path.join(folder, f"{number:04}"), kind, quality=85)
"""


def draw(python: str, folder: Path, count: int) -> list[str]:
    """Files of mixed sizes, in base64."""
    given = json.dumps([count, SIZES, 5]).encode()
    subprocess.run([python, "-c", DRAW, str(folder)], input=given, check=True)
    return [base64.b64encode(file.read_bytes()).decode() for file in sorted(folder.iterdir())]


def post(url: str, body: bytes) -> dict[str, object]:
    """A reply as JSON."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - a server of this run
    with urllib.request.urlopen(request) as reply:  # noqa: S310
        found: dict[str, object] = json.load(reply)
        return found


def rate(url: str, bodies: list[bytes], clients: int) -> float:
    """Images a second while so many clients wait for their replies one by one."""
    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(lambda body: post(url, body), bodies))
    return len(bodies) / (time.perf_counter() - started)


def karat_body(prompt: str, image: str) -> bytes:
    """What karat is sent."""
    return json.dumps(
        {"model": "clip", "inputs": [{"prompt": prompt, "image": f"data:image/*;base64,{image}"}]}
    ).encode()


def main() -> None:
    """Prints a line for each round, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", required=True)
    parser.add_argument("--karat", type=Path, default=ROOT / "target/release/karat")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryFile() as log:
        model, files = Path(made) / "clip", Path(made) / "images"
        files.mkdir()
        peer = [given.python, "-m", "loadtest.peers.images_server"]
        subprocess.run([*peer, "--write", str(model)], check=True, cwd=ROOT)
        images = draw(given.python, files, given.images)
        order = list(range(len(images)))
        random.Random(3).shuffle(order)
        asked = [(f"w{number // 8} w{number // 8 + 1} w7", images[number]) for number in order]
        ours, theirs = free_address(), free_address()
        karat = [str(given.karat), "serve", "--model", str(model), "--listen", ours, "--cache-mb", "0"]
        other = [*peer, "--model", str(model), "--port", theirs.rsplit(":", 1)[1]]
        with (
            running(karat, lambda: answers(f"http://{ours}/health/ready"), log),
            running(other, lambda: answers(f"http://{theirs}/health"), log, folder=ROOT),
        ):
            mine = [karat_body(prompt, image) for prompt, image in asked]
            his = [json.dumps({"prompt": prompt, "image": image}).encode() for prompt, image in asked]
            worst = 0.0
            for one, two in list(zip(mine, his, strict=True))[:32]:
                results = post(f"http://{ours}/v1/score", one)["results"]
                reward = results[0]["reward"]  # type: ignore[index]
                worst = max(worst, abs(reward - float(str(post(f"http://{theirs}/score", two)["score"]))))
            print(f"largest difference of 32 scores: {worst:.2e}")
            if worst > TOLERANCE:
                raise SystemExit("the servers give different scores")
            ratios = []
            for number in range(given.rounds):
                both = {}
                for name in ["karat", "peer"] if number % 2 else ["peer", "karat"]:
                    url, bodies = (ours + "/v1/score", mine) if name == "karat" else (theirs + "/score", his)
                    both[name] = rate(f"http://{url}", bodies, given.clients)
                ratios.append(both["karat"] / both["peer"])
                print(f"karat {both['karat']:.1f} images/s, FastAPI with Transformers {both['peer']:.1f}")
            print(f"ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
