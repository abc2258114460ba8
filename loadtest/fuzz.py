"""Requests over every route, right, mutated and hostile ones, beside samples whose scores are known.

    .venv/bin/python -m loadtest.fuzz --server target/release/karat --models models --model relevance --requests 100000

Prints counts as JSON, and fails when a score is wrong, a reply is a 5xx that isn't a refusal to be tried again, or the
server panics or ends. The seed makes a run repeatable but for the order in which threads send.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtest.canary import PAIRS, TOLERANCE, reference
from tools.server_process import answers, free_address, running

THREADS = 8
# What a refusal to be tried again is told with.
REFUSED = (429, 503)

Scores = Callable[[Any], list[float]]


@dataclass(frozen=True)
class Route:
    """A route, how it is asked for a prompt and some responses, and where their scores stand in its reply."""

    path: str
    body: Callable[[str, list[str]], Any]
    scores: Scores


def by_index(reply: Any, score: str) -> list[float]:
    """The scores of ranked results in the order of the request."""
    ranked = sorted(reply, key=lambda result: int(result["index"]))
    return [float(result[score]) for result in ranked]


def samples(prompt: str, responses: list[str]) -> list[dict[str, str]]:
    """A prompt with each response."""
    return [{"prompt": prompt, "response": response} for response in responses]


def tensor(name: str, texts: list[str]) -> dict[str, Any]:
    """Texts as KServe has them."""
    return {"name": name, "shape": [len(texts)], "datatype": "BYTES", "data": texts}


def routes(model: str) -> list[Route]:
    """Routes that score prompts with responses."""
    raw = "activation=none&transforms="
    return [
        Route(
            "/v1/score",
            lambda p, r: {"model": model, "inputs": samples(p, r), "transforms": []},
            lambda reply: [float(result["reward"]) for result in reply["results"]],
        ),
        Route(
            "/v1/best-of-n",
            lambda p, r: {"model": model, "prompt": p, "candidates": r, "transforms": []},
            lambda reply: [float(result["reward"]) for result in reply["results"]],
        ),
        Route(
            f"/m/{model}/get_reward?transforms=",
            lambda p, r: {"query": [p + x for x in r], "prompts": [p] * len(r), "labels": [None] * len(r)},
            lambda reply: [float(score) for score in reply["rewards"]],
        ),
        Route(
            f"/rerank?{raw}",
            lambda p, r: {"model": model, "query": p, "documents": r},
            lambda reply: by_index(reply["results"], "relevance_score"),
        ),
        Route(
            f"/vllm/score?{raw}",
            lambda p, r: {"model": model, "text_1": p, "text_2": r},
            lambda reply: by_index(reply["data"], "score"),
        ),
        Route(
            f"/m/{model}/tei/rerank?{raw}",
            lambda p, r: {"query": p, "texts": r},
            lambda reply: by_index(reply, "score"),
        ),
        Route(
            f"/m/{model}/predict?{raw}",
            lambda p, r: {"inputs": [[p, x] for x in r]},
            lambda reply: [float(labels[0]["score"]) for labels in reply],
        ),
        Route(
            f"/cohere/v2/rerank?{raw}",
            lambda p, r: {"model": model, "query": p, "documents": r},
            lambda reply: by_index(reply["results"], "relevance_score"),
        ),
        Route(
            f"/jina/v1/rerank?{raw}",
            lambda p, r: {"model": model, "query": p, "documents": r},
            lambda reply: by_index(reply["results"], "relevance_score"),
        ),
        Route(
            f"/v2/models/{model}/infer?transforms=",
            lambda p, r: {"inputs": [tensor("prompt", [p] * len(r)), tensor("response", r)]},
            lambda reply: [float(x) for x in next(o for o in reply["outputs"] if o["name"] == "rewards")["data"]],
        ),
        Route(
            f"/m/{model}/slime/scalar?transforms=",
            lambda p, r: {"prompt": p, "response": r[0], "label": None},
            lambda reply: [float(reply)],
        ),
    ]


# Routes that are sent bodies which nobody compares, and some that aren't there.
OTHERS = [
    "/v1/compare",
    "/v1/process",
    "/v1/tokens",
    "/v1/critique",
    "/v1/metrics/ranking_agreement",
    "/v1/metrics/correlation",
    "/classify",
    "/v1/classify",
    "/pooling",
    "/sglang/classify",
    "/v1/embeddings",
    "/v1/score/evaluation",
    "/verify",
    "/compare",
    "/slime/dict",
    "/m/%ff/get_reward",
    "/m/none/get_reward",
    "/v2/repository/index",
    "/v2/models/none/infer",
    "/nothing",
]
GETS = [
    "/health/live",
    "/health/ready",
    "/v1/models",
    "/v1/catalogue",
    "/metrics",
    "/info",
    "/v2",
    "/openapi.json",
    "/%ff",
]

HOSTILE_VALUES = [
    "null",
    "NaN",
    "-Infinity",
    "1e400",
    "-1",
    "0",
    "18446744073709551616",
    '""',
    '" "',
    '"\\ud83d"',
    '"\\u0000"',
    '"</s><pad><|im_end|>"',
    '"\u202e\u200b"',
    "[]",
    "{}",
    "[[[[[[[[[[]]]]]]]]]]",
    "true",
    '{"reward":1e308}',
    '"mark"',
    '"refuse"',
]


@dataclass
class Counts:
    """What became of requests; shared by all threads."""

    by_status: Counter[int] = field(default_factory=Counter)
    compared: int = 0
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    broken: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Fuzzer:
    """One thread's requests."""

    def __init__(self, address: str, model: str, known: list[float], seed: int, counts: Counts) -> None:
        self.address, self.counts = address, counts
        self.random = random.Random(seed)
        self.routes = routes(model)
        self.model = model
        self.known = dict(zip(PAIRS, known, strict=True))
        self.connection = http.client.HTTPConnection(address, timeout=120)

    def run(self, requests: int) -> None:
        """Sends that many requests."""
        for _ in range(requests):
            kind = self.random.random()
            if kind < 0.4:
                self._valid()
            elif kind < 0.9:
                self._mutated()
            else:
                self._hostile()

    def _valid(self) -> None:
        route = self.random.choice(self.routes)
        prompt = self.random.choice(PAIRS)[0]
        responses = [response for asked, response in PAIRS if asked == prompt]
        self.random.shuffle(responses)
        status, content = self._send("POST", route.path, json.dumps(route.body(prompt, responses)).encode())
        if status != 200:
            if status is not None and status not in REFUSED:
                self._note_wrong(f"{route.path}: HTTP {status} {content[:200]!r}")
            return
        found = route.scores(json.loads(content))
        expected = [self.known[(prompt, response)] for response in responses][: len(found)]
        if any(abs(one - other) > TOLERANCE for one, other in zip(found, expected, strict=True)):
            self._note_wrong(f"{route.path}: {found} for {expected}")
        with self.counts.lock:
            self.counts.compared += 1

    def _note_wrong(self, what: str) -> None:
        with self.counts.lock:
            self.counts.wrong.append(what)

    def _mutated(self) -> None:
        route = self.random.choice(self.routes)
        prompt, response = self.random.choice(PAIRS)
        path = route.path if self.random.random() < 0.7 else self.random.choice(OTHERS)
        if self.random.random() < 0.1:
            path += ("&" if "?" in path else "?") + self.random.choice(
                ["on_refused=-1", "on_refused=x", "truncation=%ff", "a=b"]
            )
        body = route.body(prompt, [response])
        text = json.dumps(self._changed(body), ensure_ascii=self.random.random() < 0.5)
        for _ in range(text.count('"@')):
            text = text.replace('"@"', self.random.choice(HOSTILE_VALUES), 1)
        content = bytearray(text.encode())
        if self.random.random() < 0.3 and content:
            for _ in range(self.random.randint(1, 4)):
                content[self.random.randrange(len(content))] = self.random.randrange(256)
        if self.random.random() < 0.1:
            del content[self.random.randrange(len(content) + 1) :]
        self._send("POST", path, bytes(content))

    def _changed(self, value: Any) -> Any:
        """The value with some parts replaced by what stands for a hostile one, left out or sent twice."""
        chance = self.random.random()
        if chance < 0.08:
            return "@"
        if isinstance(value, dict):
            changed = {key: self._changed(one) for key, one in value.items() if self.random.random() > 0.05}
            if self.random.random() < 0.1:
                changed[
                    self.random.choice(["on_refused", "truncation", "aggregate", "transforms", "timeout_ms", "x"])
                ] = "@"
            return changed
        if isinstance(value, list):
            many = self.random.choice([1, 1, 1, 1, 2, 50])
            return [self._changed(one) for one in value] * many
        if isinstance(value, str) and chance < 0.12:
            return value * self.random.choice([0, 2, 200])
        return value

    def _hostile(self) -> None:
        kind = self.random.randrange(5)
        if kind == 0:
            self._send(self.random.choice(["GET", "POST", "PUT", "DELETE"]), self.random.choice(GETS + OTHERS), b"")
        elif kind == 1:
            self._send("POST", "/v1/score", b"[" * self.random.choice([10, 10_000, 200_000]))
        elif kind == 2:
            text = self.random.choice(["!", "é", "\U0001f600", "\x00", "a "]) * self.random.choice(
                [10, 10_000, 300_000]
            )
            self._send("POST", "/v1/score", json.dumps({"model": self.model, "inputs": [{"text": text}]}).encode())
        elif kind == 3:
            encoding = self.random.choice(["gzip", "deflate", "zstd", "br", "gzip, gzip", "é"])
            self._send(
                "POST",
                "/v1/score",
                bytes(self.random.randrange(256) for _ in range(64)),
                {"content-encoding": encoding},
            )
        else:
            headers = {
                self.random.choice(["inference-header-content-length", "x-request-id", "accept-encoding"]): "9" * 300
            }
            self._send("POST", f"/v2/models/{self.model}/infer", b"{}", headers)

    def _send(
        self, method: str, path: str, body: bytes, headers: dict[str, str] | None = None
    ) -> tuple[int | None, bytes]:
        try:
            encoded = {name: value.encode("latin-1", "replace") for name, value in (headers or {}).items()}
            self.connection.request(method, path, body, encoded)
            reply = self.connection.getresponse()
            content = reply.read()
        except (OSError, http.client.HTTPException) as error:
            self.connection.close()
            with self.counts.lock:
                self.counts.broken[type(error).__name__] += 1
            return None, b""
        with self.counts.lock:
            self.counts.by_status[reply.status] += 1
            if reply.status >= 500 and reply.status not in REFUSED:
                self.counts.failed.append(f"{method} {path}: HTTP {reply.status} {content[:200]!r} to {body[:200]!r}")
        return reply.status, content


def main() -> int:
    """Fuzz one server and tell what became of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", type=Path, required=True, help="the executable")
    parser.add_argument("--models", type=Path, default=Path("models"), help="the folder of models")
    parser.add_argument("--model", default="relevance", help="a model of pairs, which is the canary")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    address, counts = free_address(), Counts()
    command = [str(arguments.server), "serve", "--models", str(arguments.models), "--listen", address, "--log", "error"]
    command += ["--default-model", arguments.model, "--calibration-seconds", "0"]
    with tempfile.TemporaryFile() as log:
        with running(command, lambda: answers(f"http://{address}/health/ready"), log):
            known = reference(f"http://{address}", arguments.model)
            share = -(-arguments.requests // THREADS)
            seeds = [arguments.seed * THREADS + thread for thread in range(THREADS)]
            fuzzers = [Fuzzer(address, arguments.model, known, seed, counts) for seed in seeds]
            threads = [threading.Thread(target=fuzzer.run, args=(share,)) for fuzzer in fuzzers]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            moved = [
                abs(one - other)
                for one, other in zip(reference(f"http://{address}", arguments.model), known, strict=True)
            ]
        log.seek(0)
        panics = log.read().count(b"panicked")
    told = {
        "requests": sum(counts.by_status.values()) + sum(counts.broken.values()),
        "by_status": dict(sorted(counts.by_status.items())),
        "connections_broken": dict(counts.broken),
        "scores_compared": counts.compared,
        "wrong": len(counts.wrong),
        "moved_at_the_end": max(moved),
        "server_errors": len(counts.failed),
        "panics": panics,
        "examples": (counts.wrong + counts.failed)[:10],
    }
    sys.stdout.write(json.dumps(told, indent=2) + "\n")
    return int(bool(counts.wrong or counts.failed or panics or max(moved) > TOLERANCE))


if __name__ == "__main__":
    sys.exit(main())
