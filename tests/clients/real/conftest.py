"""Real servers with the demo models, what they score by themselves, and the table of the clients."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from loadtest import wire
from tests.server_files import MODELS, executable
from tools.server_process import ServerProcess

TOLERANCE = 1e-5

# The demo models read no chat template, so that of a policy has to be taken apart for them.
RETEMPLATED = "harmless-chatml"


@dataclass(frozen=True)
class Karat:
    """A server, and what its own route says."""

    url: str

    @property
    def address(self) -> str:
        """Host and port."""
        return self.url.removeprefix("http://")

    def rewards(self, inputs: list[dict[str, Any]], model: str, **options: Any) -> Any:
        """The rewards of `POST /v1/score`, to be compared with what a client got."""
        results = wire.post(self.url, "/v1/score", {"model": model, "inputs": inputs, **options})["results"]
        return pytest.approx([float(result["reward"]) for result in results], abs=TOLERANCE, rel=0)

    def answered(self, route: str) -> int:
        """How many requests to a route were answered with 2xx."""
        metrics = wire.get(self.url, "/metrics").decode()
        line = re.search(
            rf'^karat_http_requests_total{{route="{re.escape(route)}",status="2xx"}} (\d+)', metrics, re.MULTILINE
        )
        return int(line[1]) if line else 0


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo models, and one of them for a policy that speaks ChatML."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("relevance", "harmless", "assistant"):
        (folder / name).symlink_to(MODELS / name)
    policy = folder / RETEMPLATED
    policy.mkdir()
    for file in ("model.onnx", "tokenizer.json"):
        (policy / file).symlink_to(MODELS / "harmless" / file)
    manifest = (MODELS / "harmless/model.toml").read_text()
    (policy / "model.toml").write_text(manifest.replace("[text]\n", '[text]\nretemplate = "chatml"\n'))
    return folder


@pytest.fixture(scope="session")
def replicas(onnxruntime: None, repository: Path) -> Iterator[list[Karat]]:
    """Two servers of the same models."""
    flags = ("--default-model", "harmless", "--calibration-seconds", "0")
    with (
        ServerProcess(executable(), repository, *flags) as one,
        ServerProcess(executable(), repository, *flags) as other,
    ):
        yield [Karat(one.url), Karat(other.url)]


@pytest.fixture
def karat(replicas: list[Karat]) -> Karat:
    return replicas[0]


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files of fetched clients are put."""
    return tmp_path_factory.mktemp("clients")


PROMPTS = [f"What is {number} plus {number}?" for number in range(16)]
RESPONSES = [f"It is {2 * number}" + ", as anyone can count" * (number % 5) + "." for number in range(16)]
PAIRS = [{"prompt": prompt, "response": response} for prompt, response in zip(PROMPTS, RESPONSES, strict=True)]
TEXTS = [f"{prompt} {response}" for prompt, response in zip(PROMPTS, RESPONSES, strict=True)]


def chatml(prompt: str, response: str) -> str:
    """A dialogue as a policy with ChatML writes it."""
    return f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n{response}<|im_end|>\n"


CHATS = [chatml(prompt, response) for prompt, response in zip(PROMPTS, RESPONSES, strict=True)]


ROWS = pytest.StashKey[dict[tuple[str, str, str], list[bool]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            # What the clients and their libraries warn about is theirs.
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    marker = item.get_closest_marker("client")
    if marker is not None and (report.when == "call" or report.failed):
        item.config.stash[ROWS].setdefault(marker.args, []).append(report.passed)
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Prints what the README shows."""
    terminalreporter.section("clients")
    terminalreporter.write_line("| client | version | routes | tests passed |\n|---|---|---|---|")
    for (name, version, routes), passed in config.stash[ROWS].items():
        terminalreporter.write_line(f"| {name} | {version} | {routes} | {sum(passed)} of {len(passed)} |")
