"""The demo model that rates images, as `make setup-images` builds it."""

from __future__ import annotations

import base64
import json
import urllib.request

from tests.server_files import MODELS, executable
from tools.server_process import ServerProcess

FOLDER = MODELS / "images"


def test_it_gives_the_rewards_beside_it(onnxruntime: None) -> None:
    seen = FOLDER / "open-nsfw/seen/rgb.png"
    body = {
        "model": "open-nsfw",
        "inputs": [{"image": f"data:image/png;base64,{base64.b64encode(seen.read_bytes()).decode()}"}],
    }
    with ServerProcess(executable(), FOLDER) as server:
        with urllib.request.urlopen(f"{server.url}/v1/models/open-nsfw") as reply:  # noqa: S310
            card = json.load(reply)
        with urllib.request.urlopen(f"{server.url}/v1/score", json.dumps(body).encode()) as reply:  # noqa: S310
            reward = json.load(reply)["results"][0]["reward"]
    assert (card["status"], card["references"]["count"]) == ("ready", 3)
    expected = json.loads((FOLDER / "open-nsfw/expected.json").read_text())["cases"][0]
    assert abs(reward - expected["reward"]) < 1e-3
