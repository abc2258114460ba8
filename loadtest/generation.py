"""`make bench-generation`: how fast critiques are written, alone and side by side, and beside llama.cpp.

    python -m loadtest.generation [--rounds 3] [--peer PYTHON | --alone]

The demo model `critic` writes long answers over HTTP, by the likeliest token,
to one client and to several at once. llama.cpp writes the same from the same
weights in single precision, in the same rounds; it is called without HTTP. Both
get as many threads as there are cores. Times run from the first token of the
prompt to the last of the last text, and the texts of both are compared.

llama.cpp comes from PyPI as source and is compiled: minutes, once.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from karat_client import Client, Critiques
from loadtest import environment
from loadtest.repository import MANIFEST, on_provider
from tools.server_process import ServerProcess
from tools.smollm2 import MEMBER

SCRATCH = Path(".karat/loadtest")
GGUF = Path(".karat/smollm2") / Path(MEMBER).name
MODEL = "critic"
STREAMS = (1, 2, 4, 8)
TOKENS = 128
# What stands between a question's halves, which a request calls prompt and response.
SPLIT = " about "
# Each is one token of the vocabulary and begins another story.
HEROES = [
    "sailor",
    "teacher",
    "doctor",
    "farmer",
    "king",
    "soldier",
    "painter",
    "child",
    "queen",
    "writer",
    "driver",
    "pilot",
    "judge",
    "nurse",
    "baker",
    "poet",
]


def question(hero: int) -> str:
    """What the model is asked; it answers at length."""
    name = HEROES[hero % len(HEROES)]
    return f"Write a long story{SPLIT}a {name} who comes home after {2 + hero // len(HEROES)} years, in many chapters."


class Peer:
    """llama.cpp in a process of its own, with the texts' own tokens."""

    def __init__(self, python: Path, model: Path, threads: int) -> None:
        script = Path(__file__).parent / "peers" / "llama_cpp_writer.py"
        command = [str(python), str(script), "--gguf", str(GGUF), "--scratch", str(SCRATCH), "--threads", str(threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        # Both are pipes, as was asked for.
        self._questions, self._answers = cast("IO[str]", self._process.stdin), cast("IO[str]", self._process.stdout)
        self._answer()
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        self._template = environment.from_string((model / "chat_template.jinja").read_text())
        self._tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()

    def write(self, questions: list[str]) -> tuple[float, int, list[str]]:
        """Seconds, tokens and texts."""
        prompts = [self._prompt(question) for question in questions]
        print(json.dumps({"prompts": prompts, "tokens": TOKENS}), file=self._questions, flush=True)
        answer = self._answer()
        texts = answer["texts"]
        return answer["seconds"], sum(map(len, texts)), [self._tokenizer.decode(text) for text in texts]

    def _prompt(self, question: str) -> list[int]:
        messages = [{"role": "user", "content": question}]
        text = self._template.render(messages=messages, add_generation_prompt=True)
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def _answer(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line:
            raise SystemExit("llama.cpp's process ended")
        return json.loads(line)


class Karat:
    """A server, and as many clients as texts are wanted."""

    def __init__(self, url: str) -> None:
        self._client = Client(url, MODEL)

    def write(self, questions: list[str]) -> tuple[float, int, list[str]]:
        """Seconds, tokens and texts."""

        def ask(question: str) -> Critiques:
            beginning, end = question.split(SPLIT)
            return self._client.critique(beginning, end, score=False)

        with ThreadPoolExecutor(len(questions)) as clients:
            started = time.perf_counter()
            answers = list(clients.map(ask, questions))
            seconds = time.perf_counter() - started
        tokens = sum(answer.generated_tokens for answer in answers)
        return seconds, tokens, [answer.critiques[0].text for answer in answers]


@dataclass
class Row:
    """What was measured of so many texts at once: tokens a second, by writer."""

    streams: int
    rates: dict[str, list[float]] = field(default_factory=dict)

    def rate(self, name: str) -> float:
        """The median."""
        return statistics.median(self.rates[name])


def asking_plainly(source: Path, target: Path) -> None:
    """The model with a request for critiques that is prompt and response alone."""
    on_provider(source, target, "cpu")
    manifest = target / MANIFEST
    table = f'[critique]\nrequest = "{{prompt}}{SPLIT}{{response}}"\nmax_tokens = {TOKENS}\n'
    written, count = re.subn(
        r"^\[critique\]\n.*", lambda _: table, manifest.read_text(), flags=re.MULTILINE | re.DOTALL
    )
    if count != 1:
        raise SystemExit(f"{source / MANIFEST} has no [critique] table")
    manifest.write_text(written)


def measure(writers: dict[str, Karat | Peer], rounds: int) -> list[Row]:
    """Tokens a second of each writer, in turns; says where texts differ."""
    hero = 0
    same = compared = 0
    rows = [Row(streams) for streams in STREAMS]
    for writer in writers.values():
        writer.write([question(1000)])
    for _ in range(rounds):
        for row in rows:
            questions = [question(hero + index) for index in range(row.streams)]
            hero += row.streams
            texts = []
            for name, writer in writers.items():
                seconds, tokens, written = writer.write(questions)
                row.rates.setdefault(name, []).append(tokens / seconds)
                texts.append([text.strip() for text in written])
            if len(texts) == 2:
                compared += row.streams
                same += sum(a == b for a, b in zip(*texts, strict=True))
    if compared:
        print(f"{same} of {compared} texts are the same from both, letter for letter")
    for name, writer in writers.items():
        questions = [question(hero + index) for index in range(STREAMS[-1])]
        together = writer.write(questions)[2]
        kept = sum(writer.write([alone])[2] == [text] for alone, text in zip(questions, together, strict=True))
        print(
            f"{name}: {kept} of {len(questions)} texts that were written side by side are the same when written alone"
        )
    return rows


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Measure how fast critiques are written.")
    parser.add_argument("--server", type=Path, default=Path("target/release/karat"))
    parser.add_argument("--repository", type=Path, default=Path("models/decoders"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", type=Path, default=None, help="the Python of an environment with llama-cpp-python")
    parser.add_argument("--alone", action="store_true", help="without llama.cpp")
    parser.add_argument("--output", type=Path, default=SCRATCH / "generation.json")
    arguments = parser.parse_args()

    model = arguments.repository / MODEL
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=SCRATCH)))
        asking_plainly(model, scratch / MODEL)
        server = stack.enter_context(ServerProcess(arguments.server, scratch))
        writers: dict[str, Karat | Peer] = {"karat": Karat(server.url)}
        if not arguments.alone:
            python = arguments.peer or environment.install("llama-cpp", SCRATCH)
            writers["llama.cpp"] = stack.enter_context(Peer(python, model, os.cpu_count() or 1))
        rows = measure(writers, arguments.rounds)
    first = rows[0]
    print()
    heads = ["texts at once", *(f"{name}, tokens/s" for name in writers), "karat ÷ one text"]
    heads += ["karat ÷ llama.cpp"] if len(writers) == 2 else []
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for row in rows:
        cells = [str(row.streams), *(f"{row.rate(name):.1f}" for name in writers)]
        cells.append(f"{row.rate('karat') / first.rate('karat'):.2f}")
        cells += [f"{row.rate('karat') / row.rate('llama.cpp'):.2f}"] if len(writers) == 2 else []
        print(f"| {' | '.join(cells)} |")
    arguments.output.write_text(json.dumps({row.streams: row.rates for row in rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
