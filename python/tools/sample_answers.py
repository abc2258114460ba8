"""Real instructions and answers, fetched when a check runs.

They are the sample outputs of the alpaca-eval package. That data is licensed
CC BY-NC 4.0: it is read from the package's own file, and no part of it is kept
in this repository.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

from tools.packages import ALPACA_EVAL, fetch


def sample_answers(cache: Path) -> list[tuple[str, str]]:
    """Every (instruction, answer) of which neither is empty, in the file's order."""
    with tarfile.open(fetch(ALPACA_EVAL, cache)) as archive:
        member = f"alpaca_eval-{ALPACA_EVAL.version}/example/outputs.json"
        stream = archive.extractfile(member)
        if stream is None:
            raise SystemExit(f"{member} is not a file in the alpaca-eval package")
        rows = json.load(stream)
    pairs = [(row["instruction"].strip(), row["output"].strip()) for row in rows]
    return [(prompt, response) for prompt, response in pairs if prompt and response]
