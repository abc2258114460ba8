"""Every command of the documentation is run, or says why not; every link leads somewhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import Block, anchors, blocks, links, pages
from tests.server_files import MODELS, ROOT, executable
from tools.server_process import ServerProcess, free_address

EVERY = [block for page in pages() for block in blocks(page)]
RUN = [block for block in EVERY if block.why_not is None]
README_LINES = 130
SECONDS = 300

# A server in a block is up once it is ready, and goes on the next line.
SERVE = """#!/bin/bash
if [ "$1" != serve ]; then exec "{karat}" "$@"; fi
"{karat}" "$@" --listen {address} 2>"{log}" & server=$!
for _ in $(seq 1200); do
    curl -sf -o /dev/null http://{address}/health/ready && break
    kill -0 $server 2>/dev/null || {{ cat "{log}" >&2; exit 1; }}
    sleep 0.1
done
kill $server
wait $server
"""
# Targets build, fetch and test for hours: that make knows them, and how they are made, is what is tested.
MAKE = """#!/bin/bash
exec {make} --dry-run "$@" >/dev/null
"""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ServerProcess(executable(), MODELS, "--calibration-seconds", "0") as running:
        yield running.url.removeprefix("http://")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The project, as far as commands need it, where they may leave files."""
    place = tmp_path / "karat"
    place.mkdir()
    for entry in ROOT.iterdir():
        if entry.name != "target":
            (place / entry.name).symlink_to(entry)
    return place


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    place = tmp_path / "bin"
    place.mkdir()
    make = shutil.which("make")
    serve = SERVE.format(karat=executable().absolute(), address=free_address(), log=tmp_path / "log")
    for name, text in (("karat", serve), ("make", MAKE.format(make=make))):
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    return place


def run(command: list[str], code: str, server: str, folder: Path, programs: Path) -> None:
    for host in ("localhost:8080", "127.0.0.1:8080"):
        code = code.replace(host, server)
    # Commands that ask a server fail where it refuses.
    code = code.replace("curl -s", "curl -fs")
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "KARAT_CALIBRATION_SECONDS": "0"}
    done = subprocess.run(
        [*command, code], cwd=folder, env=environment, text=True, capture_output=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("block", [block for block in RUN if block.language == "sh"], ids=lambda block: block.name)
def test_commands_run_as_printed(block: Block, server: str, folder: Path, programs: Path) -> None:
    # What is exported may stand before what is run here.
    code = block.code.replace('export PATH="$PWD/target/release:$PATH"', "")
    run(["bash", "-euo", "pipefail", "-c"], code, server, folder, programs)


@pytest.mark.parametrize("block", [block for block in RUN if block.language == "python"], ids=lambda block: block.name)
def test_python_runs_as_printed(block: Block, server: str, folder: Path, programs: Path) -> None:
    run([sys.executable, "-c"], block.code, server, folder, programs)


def test_the_notebooks_cells_run_one_after_another(server: str, folder: Path, programs: Path) -> None:
    notebook = json.loads((ROOT / "examples/best_of_n.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    run([sys.executable, "-c"], "\n".join(cells), server, folder, programs)


@pytest.mark.parametrize("block", EVERY, ids=lambda block: block.name)
def test_every_block_says_what_it_is(block: Block) -> None:
    assert block.language, "name its language: sh for commands, which are run, text for what they print"
    commands = re.match(r"(make|karat|curl) [\w./-]", block.code)
    assert block.language != "text" or commands is None, "commands are sh"


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{link} is nowhere"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{link}: no heading is called so; there are {sorted(anchors(target))}"


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES
