"""Model repositories for a measurement: the same models, on another provider."""

from __future__ import annotations

import re
from pathlib import Path

from tools.link_file import link_or_copy

MANIFEST = "model.toml"


def on_provider(source: Path, target: Path, provider: str) -> None:
    """Makes the folder `target` of the model in `source`, to run on `provider` and nothing else.

    What a server wrote to `target` earlier stays, such as engines that took minutes to build.
    """
    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.is_file() and file.name != MANIFEST:
            link_or_copy(file.resolve(), target / file.name)
    providers = f'providers = ["{provider}"]'
    text = (source / MANIFEST).read_text()
    written, count = re.subn(r"^providers = \[[^\n]*\]$", providers, text, flags=re.MULTILINE)
    (target / MANIFEST).write_text(written if count else f"{providers}\n{text}")
