"""Chat templates of real models: whether karat renders each as Transformers does.

`python -m tests.templates.real` fetches llama-cpp-python's sources, in which 70 of them lie, records what Transformers
makes of a few conversations, and lets `cargo test` compare. The templates are their models' makers', so none is kept
here. It needs a network, and what `record.py` needs; CI runs neither.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
import tempfile
import urllib.request
from pathlib import Path

from .record import record, write

SOURCES = "https://files.pythonhosted.org/packages/ec/e9/e7de2b0463ea3ffbf0ede6cb21b58c1258a8f6521aae45ca773a59fe7cf3/llama_cpp_python-0.3.36.tar.gz"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
ROOT = Path(__file__).parents[2]
TEST = "every_template_gives_the_text_of_transformers_or_its_refusal"
COMPARE = ["cargo", "test", "--quiet", "-p", "karat-engine", "--lib", TEST]


def templates() -> dict[str, str]:
    """The templates by name, as they lie in the archive."""
    with urllib.request.urlopen(SOURCES) as reply:
        archive = reply.read()
    if hashlib.sha256(archive).hexdigest() != SHA256:
        raise SystemExit(f"{SOURCES} is not what was pinned")
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        for member in files:
            path = Path(member.name)
            if path.match("vendor/llama.cpp/models/templates/*.jinja"):
                content = files.extractfile(member)
                assert content is not None
                found[path.stem] = content.read().decode()
    return found


def main() -> None:
    """Prints which templates give other text, and what differs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rendered = {}
        for template, source in sorted(templates().items()):
            path = folder / f"{template}.jinja"
            path.write_text(source, encoding="utf-8")
            recorded = record(source, TOKENS)
            rendered[template] = sum("text" in case for case in recorded["cases"]), len(recorded["cases"])
            write(path, recorded)
        done = subprocess.run(
            COMPARE,
            cwd=ROOT,
            env=os.environ | {"KARAT_TEMPLATES": name, "RUST_BACKTRACE": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        differing = {template for template in rendered if str(folder / f"{template}.json") in done.stdout}
    for template, (texts, conversations) in rendered.items():
        word = "different" if template in differing else "equal"
        print(f"{word:10}{template} ({texts} of {conversations} rendered by Transformers)")
    print(f"{len(rendered) - len(differing)} of {len(rendered)} equal")
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)


if __name__ == "__main__":
    main()
