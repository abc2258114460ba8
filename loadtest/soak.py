"""Mixed traffic over all routes for as long as you like, beside samples whose scores are known.

    make soak MINUTES=120
    .venv/bin/python -m loadtest.soak --server target/debug/karat --minutes 2 --tiny

karat's own routes, the dialects, streamed critiques, images, runs with outcomes and jobs take turns; every score that
can be known is compared. Meanwhile a canary asks at a steady rate, and what the process holds is looked at: resident
memory, descriptors and threads. The first quarter of the time is left to caches and allocators to fill. After it,
memory has to stay within 3 % of what it was, and descriptors and threads where they were. Prints a line a sample and a
table, and fails on a wrong score, an error, a lost request or a drift. KServe over gRPC is not among the routes: the
project's Python has no client of it, and `cargo test --test it grpc` speaks it.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from loadtest.canary import PAIRS, TOLERANCE, Canary, quantile, reference
from loadtest.fuzz import REFUSED, Route, routes
from loadtest.machine import resident_bytes
from loadtest.tiny import GRAPHS, tokenizer, write_tiny
from tools.server_process import answers, free_address, running

IMAGES = Path(__file__).parent.parent / "tests/images"
CANARY = "canary"
WRITER = "writer"
SEER = "seer"
SAMPLES = 40
WARM_UP = 0.25
MEMORY_SHARE = 0.03
# Connections come and go with the canary and with events: so many more or less are no leak.
SPARE = 4
RUNS = 16
JOB_ROWS = 64
JOB_SECONDS = 120.0
# Numbers that the writer's tokenizer knows.
WRITER_MANIFEST = """\
head = "log_probability"
[graph]
file = "tiny_decoder_lm.onnx"
[text]
render = { jinja = "{% for m in messages %}{{ m['content'] }} {% endfor %}" }
special_tokens = false
pad_token = "[PAD]"
max_tokens = 200
[critique]
request = "{prompt} {response}"
max_tokens = 12
"""


class Unexpected(Exception):
    """A reply that isn't what it should be."""


@dataclass
class Counts:
    """What became of the work, by kind; shared by all threads."""

    done: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, kind: str, refused: bool) -> None:
        """Counts one that came through, or that was refused to be tried again."""
        with self.lock:
            (self.refused if refused else self.done)[kind] += 1

    def fail(self, what: str) -> None:
        """Counts an error."""
        with self.lock:
            self.errors.append(what)


class Refused(Exception):
    """The server takes nothing now."""


class Caller:
    """One client's connection, which stays open."""

    def __init__(self, address: str, seed: int) -> None:
        self.random = random.Random(seed)
        self._connection = http.client.HTTPConnection(address, timeout=300)

    def call(self, method: str, path: str, body: Any = None, wanted: int = 200) -> bytes:
        """The content of the reply; raises Refused, Unexpected on another status than `wanted`, or OSError."""
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        try:
            self._connection.request(method, path, content, {"content-type": "application/json"})
            reply = self._connection.getresponse()
            received = reply.read()
        except BaseException:
            self._connection.close()
            raise
        if reply.status in REFUSED:
            raise Refused
        if reply.status != wanted:
            raise Unexpected(f"{method} {path}: HTTP {reply.status} {received[:200]!r}")
        return received

    def json(self, method: str, path: str, body: Any = None, wanted: int = 200) -> Any:
        """The same, as JSON."""
        return json.loads(self.call(method, path, body, wanted))


def compare(what: str, found: list[float], expected: list[float], tolerance: float = TOLERANCE) -> None:
    """Raises Unexpected where scores differ."""
    if len(found) != len(expected) or any(
        abs(one - other) > tolerance for one, other in zip(found, expected, strict=True)
    ):
        raise Unexpected(f"{what}: {found} for {expected}")


Work = Callable[[Caller], None]


def score_by(route: Route, known: dict[tuple[str, str], float], caller: Caller) -> None:
    """One request in one dialect, whose scores are known."""
    prompt = caller.random.choice(PAIRS)[0]
    responses = [response for asked, response in PAIRS if asked == prompt]
    caller.random.shuffle(responses)
    reply = caller.json("POST", route.path, route.body(prompt, responses))
    found = route.scores(reply)
    compare(route.path, found, [known[(prompt, response)] for response in responses][: len(found)])


def follow_a_run(caller: Caller) -> None:
    """Scores for a step of a run, tells what came of it, and reads what is known of the run."""
    run, step = f"run-{caller.random.randrange(RUNS)}", caller.random.randrange(1000)
    inputs = [{"prompt": "what is it", "response": f"it is {caller.random.random()}"} for _ in range(8)]
    scored = caller.json("POST", "/v1/score", {"model": CANARY, "run": run, "step": step, "inputs": inputs})
    outcomes = [{"request": scored["id"], "index": place, "value": place % 2} for place in range(len(inputs))]
    told = caller.json("POST", f"/v1/runs/{run}/outcomes", {"outcomes": outcomes})
    if told["accepted"] != len(inputs):
        raise Unexpected(f"outcomes: {told}")
    if caller.json("GET", f"/v1/runs/{run}")["run"] != run:
        raise Unexpected(f"{run} is another one")


def do_a_job(known: dict[tuple[str, str], float], caller: Caller) -> None:
    """Has rows scored as a job, waits for it, compares its results and removes it."""
    chosen = [caller.random.choice(PAIRS) for _ in range(JOB_ROWS)]
    lines = [{"model": CANARY, "transforms": []}, *({"prompt": one, "response": other} for one, other in chosen)]
    body = "\n".join(json.dumps(line) for line in lines).encode()
    job = caller.json("POST", "/v1/jobs", body, wanted=202)["id"]
    deadline = time.monotonic() + JOB_SECONDS
    while caller.json("GET", f"/v1/jobs/{job}")["state"] != "done":
        if time.monotonic() > deadline:
            raise Unexpected(f"the job {job} isn't done after {JOB_SECONDS:g} s")
        time.sleep(0.1)
    results = [json.loads(line) for line in caller.call("GET", f"/v1/jobs/{job}/results").splitlines()]
    compare("job", [result.get("reward", float("inf")) for result in results], [known[pair] for pair in chosen])
    caller.json("DELETE", f"/v1/jobs/{job}")


def critique(caller: Caller) -> None:
    """Has a critique written, as a stream or whole."""
    stream = caller.random.random() < 0.5
    numbers = [str(caller.random.randrange(10, 300)) for _ in range(6)]
    body = {"model": WRITER, "prompt": " ".join(numbers[:5]), "response": numbers[5], "stream": stream}
    content = caller.call("POST", "/v1/critique", body)
    if stream and b"event: done" not in content:
        raise Unexpected(f"/v1/critique: the stream ends without its end: {content[-200:]!r}")


def rate_an_image(caller: Caller) -> None:
    """Rates an image whose score Transformers has given."""
    cases = json.loads((IMAGES / "checkpoints/clip/scores.json").read_text())
    case = caller.random.choice([case for case in cases if case["image"].endswith((".png", ".jpg"))])
    data = base64.b64encode((IMAGES / case["image"]).read_bytes()).decode()
    kind = "png" if case["image"].endswith("png") else "jpeg"
    sample = {"prompt": case["prompt"], "image": f"data:image/{kind};base64,{data}"}
    reply = caller.json("POST", "/v1/score", {"model": SEER, "inputs": [sample]})
    compare("image", [reply["results"][0]["reward"]], [case["score"]])


def ask_around(caller: Caller) -> None:
    """What monitors, consoles and mistaken clients ask."""
    for path in ["/health/live", "/v1/models", f"/v1/models/{CANARY}", "/v1/runs", "/v1/jobs", "/metrics", "/v2"]:
        caller.call("GET", path)
    pair = {"prompt": "what is it", "chosen": "it is this", "rejected": "it is that"}
    caller.call("POST", "/v1/compare", {"model": CANARY, "pairs": [pair]})
    caller.call("POST", "/v1/score", b"{", wanted=400)
    caller.call("POST", "/v1/score", {"model": "nobody", "inputs": [{"text": "x"}]}, wanted=404)
    caller.call("POST", "/v1/score", {"model": CANARY, "inputs": []}, wanted=422)


def kinds(known: dict[tuple[str, str], float]) -> list[tuple[str, int, Work]]:
    """Every kind of work with its weight."""
    dialects: list[tuple[str, int, Work]] = [
        (route.path.partition("?")[0], 4, partial(score_by, route, known)) for route in routes(CANARY)
    ]
    return [
        *dialects,
        ("runs", 8, follow_a_run),
        ("jobs", 2, partial(do_a_job, known)),
        ("critiques", 4, critique),
        ("images", 4, rate_an_image),
        ("others", 2, ask_around),
    ]


def work(caller: Caller, known: dict[tuple[str, str], float], counts: Counts, over: threading.Event) -> None:
    """One client's turn after turn."""
    all_kinds = kinds(known)
    weights = [weight for _, weight, _ in all_kinds]
    while not over.is_set():
        kind, _, one = caller.random.choices(all_kinds, weights)[0]
        try:
            one(caller)
            counts.note(kind, refused=False)
        except Refused:
            counts.note(kind, refused=True)
            time.sleep(0.2)
        except (Unexpected, OSError, http.client.HTTPException, KeyError, ValueError) as error:
            counts.fail(f"{kind}: {type(error).__name__}: {error}")


@dataclass(frozen=True)
class Held:
    """What the process holds at one time."""

    minutes: float
    memory: int
    descriptors: int
    threads: int

    @classmethod
    def by(cls, process: int, minutes: float) -> Held:
        """Looks."""
        proc = Path(f"/proc/{process}")
        return cls(
            minutes, resident_bytes(process), len(list((proc / "fd").iterdir())), len(list((proc / "task").iterdir()))
        )


def watch(process: int, minutes: float) -> list[Held]:
    """Looks at the process again and again for so long."""
    begun = time.monotonic()
    held = []
    for sample in range(1, SAMPLES + 1):
        time.sleep(max(0.0, begun + sample * minutes * 60 / SAMPLES - time.monotonic()))
        held.append(Held.by(process, (time.monotonic() - begun) / 60))
        last = held[-1]
        print(
            f"  {last.minutes:7.2f} min  {last.memory / 2**20:8.1f} MiB  {last.descriptors:4} descriptors  "
            f"{last.threads:4} threads",
            flush=True,
        )
    return held


def drifts(held: list[Held]) -> list[tuple[str, float, float, str]]:
    """What each figure was after the warm-up and at the end, as medians, and what is wrong with that."""
    settled = held[int(WARM_UP * len(held)) :]
    part = max(1, len(settled) // 4)
    first, last = settled[:part], settled[-part:]

    def middle(samples: list[Held], read: Callable[[Held], int]) -> float:
        return float(statistics.median(map(read, samples)))

    lines = []
    reads: list[tuple[str, Callable[[Held], int]]] = [
        ("memory, MiB", lambda one: one.memory >> 20),
        ("descriptors", lambda one: one.descriptors),
        ("threads", lambda one: one.threads),
    ]
    for name, read in reads:
        before, after = middle(first, read), middle(last, read)
        allowed = MEMORY_SHARE * before if name.startswith("memory") else SPARE
        lines.append((name, before, after, "drifts" if abs(after - before) > allowed else ""))
    return lines


def repository(folder: Path, models: Path, tiny: bool) -> None:
    """The canary, a model that writes and one that sees."""
    if tiny:
        write_tiny(folder / CANARY)
    else:
        # Copied, since karat keeps what it measures beside the graph.
        shutil.copytree(models / "relevance", folder / CANARY)
    (folder / WRITER).mkdir()
    (folder / WRITER / "model.toml").write_text(WRITER_MANIFEST)
    (folder / WRITER / "tokenizer.json").write_text(tokenizer())
    shutil.copy(GRAPHS / "tiny_decoder_lm.onnx", folder / WRITER)
    shutil.copytree(IMAGES / "checkpoints/clip", folder / SEER)


def main() -> int:
    """Runs the command; 0 when nothing was wrong and nothing grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", type=Path, default=Path("target/release/karat"), help="the executable")
    parser.add_argument("--models", type=Path, default=Path("models"), help="the folder of models")
    parser.add_argument("--tiny", action="store_true", help="a graph of one sum as the canary, in place of relevance")
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    counts, over = Counts(), threading.Event()
    address = free_address()
    with tempfile.TemporaryDirectory() as temporary, tempfile.TemporaryFile() as log:
        folder = Path(temporary)
        repository(folder / "models", arguments.models, arguments.tiny)
        command = [str(arguments.server), "serve", "--models", str(folder / "models"), "--listen", address, "--strict"]
        # Small caches are full soon, so that memory stands still.
        command += ["--log", "error", "--default-model", CANARY, "--cache-mb", "1", "--prefix-cache-mb", "4"]
        command += ["--state", str(folder / "state")]
        with running(command, lambda: answers(f"http://{address}/health/ready"), log) as process:
            scores = reference(f"http://{address}", CANARY)
            known = dict(zip(PAIRS, scores, strict=True))
            canary = Canary(f"http://{address}", CANARY, scores, rate=5.0)
            threads = [
                threading.Thread(
                    target=work, args=(Caller(address, arguments.seed * 1000 + client), known, counts, over)
                )
                for client in range(arguments.clients)
            ]
            threads.append(threading.Thread(target=canary.run, args=(over,)))
            for thread in threads:
                thread.start()
            try:
                held = watch(process.pid, arguments.minutes)
            finally:
                over.set()
            for thread in threads:
                thread.join()
        log.seek(0)
        panics = log.read().count(b"panicked")
    lines = drifts(held)
    print(f"\n{'kind':32} {'done':>9} {'refused':>9}")
    for kind in sorted(counts.done | counts.refused):
        print(f"{kind:32} {counts.done[kind]:9} {counts.refused[kind]:9}")
    print(f"\n{'held':16} {'warmed up':>10} {'at the end':>10}")
    for name, before, after, wrong in lines:
        print(f"{name:16} {before:10.0f} {after:10.0f}  {wrong}")
    print(
        f"\ncanary: {len(canary.seconds)} answered, {canary.wrong} wrong, {len(canary.failed)} failed, "
        f"p99 {1000 * quantile(canary.seconds, 0.99):.0f} ms; {len(counts.errors)} errors, {panics} panics"
    )
    for error in counts.errors[:10] + canary.failed[:3]:
        print(f"  {error}", file=sys.stderr)
    drifting = any(wrong for *_, wrong in lines)
    return int(bool(counts.errors or canary.wrong or canary.failed or panics or drifting))


if __name__ == "__main__":
    sys.exit(main())
