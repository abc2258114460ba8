"""Ranks image files for a prompt, by a model that compares images with texts; for an empty one by one that rates them.

    karat serve --model ./pickscore
    python examples/rank_images.py pickscore "a red cat on a blue sofa" one.png two.jpg three.webp

Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path


def data_uri(file: Path) -> str:
    """An image as a request carries it; the server tells its type by its bytes."""
    return f"data:image/*;base64,{base64.b64encode(file.read_bytes()).decode()}"


def rank(server: str, model: str, prompt: str, files: list[Path]) -> list[tuple[float, Path]]:
    """The files with their rewards, the best first."""
    body = {"model": model, "prompt": prompt, "candidates": [{"image": data_uri(file)} for file in files]}
    url = f"{server}/v1/best-of-n"
    request = urllib.request.Request(url, json.dumps(body).encode())  # noqa: S310 - the caller's own server
    with urllib.request.urlopen(request) as reply:  # noqa: S310
        results = json.load(reply)["results"]
    rewards = [result["reward"] for result in results]
    return sorted(zip(rewards, files, strict=True), key=lambda pair: -pair[0])


def main() -> int:
    """Prints a line for each file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("prompt")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--server", default="http://127.0.0.1:8080")
    given = parser.parse_args()
    try:
        for reward, file in rank(given.server, given.model, given.prompt, given.files):
            print(f"{reward:9.4f}  {file}")
    except urllib.error.HTTPError as error:
        print(json.load(error)["detail"], file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
