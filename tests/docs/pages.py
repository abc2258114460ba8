"""The documentation's pages: their blocks of code, their links, their headings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.server_files import ROOT

GENERATED = {"catalogue.md", "manifest.md"}
FENCE = re.compile(r"^(?:<!-- not run: (?P<why>[^\n]+) -->\n)?```(?P<language>\S*)\n(?P<code>.*?)^```$", re.M | re.S)
LINK = re.compile(r"(?<!\\)\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.M)


@dataclass(frozen=True)
class Block:
    """A block of code, and why it isn't run if it isn't."""

    page: str
    line: int
    language: str
    code: str
    why_not: str | None

    @property
    def name(self) -> str:
        """Its place, as an editor finds it."""
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Every page that somebody wrote for users."""
    folders = ["docs", "docs/dialects", "examples", "models", "models/*", "models/decoders/*", "models/images/*"]
    found = [path for folder in folders for path in sorted(ROOT.glob(f"{folder}/*.md"))]
    found += [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "loadtest/README.md")]
    return [path for path in [*found, ROOT / "python/client/README.md"] if path.name not in GENERATED]


def blocks(path: Path) -> list[Block]:
    """A page's blocks in their order."""
    text = path.read_text()
    page = str(path.relative_to(ROOT))
    return [
        Block(page, text[: found.start()].count("\n") + 1, found["language"], found["code"], found["why"])
        for found in FENCE.finditer(text)
    ]


def links(path: Path) -> list[str]:
    """Where a page leads within the project."""
    prose = FENCE.sub("", path.read_text())
    targets = [found["target"] for found in LINK.finditer(prose)]
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(path: Path) -> set[str]:
    """The names under which a page's headings are linked to, as GitHub makes them."""
    prose = FENCE.sub("", path.read_text())
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(prose))
    return {heading.strip().replace(" ", "-") for heading in plain}
