"""Restarts three karats behind a balancer, one after another and again and again, under load, and counts what is lost.

    python -m loadtest.rolling [--proxy nginx] [--requests 20000]

Two kinds of clients ask at once: karat's own, which sends again what got no reply, and one of OpenRLHF's shape that
sends each request once. Every reward is compared with what one replica gave before. The balancer runs with the
configuration in `deploy/`, on free ports. It must be installed.
"""

from __future__ import annotations

import argparse
import itertools
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import httpx

from karat_client import Client
from tools.server_process import free_address

ROOT = Path(__file__).parent.parent
CANDIDATES = 4
# After so many requests the same ones come again.
PERIOD = 2 * 101 * 7
READY_DOWN_SECONDS = 3
START_SECONDS = 120.0


@dataclass
class Replica:
    """A karat that can be ended and started again at the same address."""

    executable: Path
    models: Path
    log: Path
    address: str = field(default_factory=free_address)
    process: subprocess.Popen[bytes] | None = None
    more: tuple[str, ...] = ()

    def start(self) -> None:
        """Starts it and waits until it is ready."""
        flags = ["--listen", self.address, "--ready-down-seconds", str(READY_DOWN_SECONDS), "--strict"]
        command = [str(self.executable), "serve", "--models", str(self.models), *flags, *self.more, "--log", "warn"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log)
        with Client(f"http://{self.address}") as client:
            client.wait_ready(timeout=START_SECONDS)

    def end(self) -> int:
        """Ends it as a supervisor does, and tells its exit status."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait()

    def counted(self, metric: str) -> float:
        """A counter of it, over all models."""
        text = httpx.get(f"http://{self.address}/metrics").text
        return sum(float(value) for value in re.findall(rf"^{metric}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


@contextmanager
def balancer(
    kind: str, replicas: list[Replica], folder: Path, changes: Mapping[str, str] = MappingProxyType({})
) -> Iterator[str]:
    """HAProxy or nginx in front of the replicas, with the configuration in `deploy/`; its URL.

    In it, each of `changes` is written otherwise.
    """
    source = {"haproxy": "haproxy/haproxy.cfg", "nginx": "nginx/nginx.conf"}[kind]
    text = (ROOT / "deploy" / source).read_text()
    front = free_address()
    written = ["127.0.0.1:8000", *(f"127.0.0.1:{8081 + number}" for number in range(len(replicas)))]
    addresses = dict(zip(written, [front, *(replica.address for replica in replicas)], strict=True))
    for before, after in {**addresses, **changes}.items():
        if before not in text:
            raise SystemExit(f"{source} has no {before}")
        text = text.replace(before, after)
    configuration = folder / Path(source).name
    configuration.write_text(text)
    command = {
        "haproxy": ["haproxy", "-db", "-f", str(configuration)],
        "nginx": ["nginx", "-c", str(configuration), "-g", f"daemon off; pid {folder}/nginx.pid;"],
    }[kind]
    if shutil.which(command[0]) is None:
        raise SystemExit(f"{command[0]} is not installed")
    with (folder / f"{kind}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        with Client(f"http://{front}") as client:
            client.wait_ready(timeout=30.0)
        yield f"http://{front}"
    finally:
        process.terminate()
        process.wait()


def group(number: int) -> tuple[str, list[str]]:
    """A prompt and its candidates; every prompt comes several times."""
    prompt = f"{10 + number % 101} {20 + number % 7}"
    return prompt, [f"{30 + number % 2 + place}" for place in range(CANDIDATES)]


@dataclass
class Counts:
    """What became of the requests."""

    answered: int = 0
    lost: list[str] = field(default_factory=list)
    wrong: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, rewards: list[float], expected: list[float]) -> None:
        """Counts an answer."""
        close = all(abs(one - other) < 1e-4 for one, other in zip(rewards, expected, strict=True))
        with self.lock:
            self.answered += 1
            self.wrong += not close

    def lose(self, why: str) -> None:
        """Counts a request without an answer."""
        with self.lock:
            self.lost.append(why)


def own_client(client: Client, number: int, expected: list[float], counts: Counts) -> None:
    """One call of karat's client."""
    prompt, responses = group(number)
    try:
        counts.note(client.score(prompts=prompt, responses=responses).rewards, expected)
    except Exception as error:
        counts.lose(f"karat-client: {type(error).__name__}: {error}")


def post_once(http: httpx.Client, model: str, number: int) -> list[float]:
    """The rewards that one request of OpenRLHF's shape brings, which nobody sends again."""
    prompt, responses = group(number)
    body = {"query": [f"{prompt} {response}" for response in responses], "prompts": [prompt] * len(responses)}
    reply = http.post(f"/m/{model}/get_reward", json=body)
    reply.raise_for_status()
    rewards: list[float] = reply.json()["rewards"]
    return rewards


def once(http: httpx.Client, model: str, number: int, expected: list[float], counts: Counts) -> None:
    """One request of OpenRLHF's shape."""
    try:
        counts.note(post_once(http, model, number), expected)
    except Exception as error:
        counts.lose(f"OpenRLHF: {type(error).__name__}: {error}")


def roll(replicas: list[Replica], over: threading.Event) -> tuple[int, list[int]]:
    """Restarts one replica after another until the load is over; how many, and the exit statuses that weren't 0."""
    statuses = []
    for replica in itertools.cycle(replicas):
        if over.is_set():
            break
        statuses.append(replica.end())
        replica.start()
        # The balancer learns of it before the next one goes.
        time.sleep(2.0)
    return len(statuses), [status for status in statuses if status != 0]


def main() -> int:
    """Runs the command; 0 when nothing was lost and every reward was right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", type=Path, default=ROOT / "target/release/karat", help="the program")
    parser.add_argument("--models", type=Path, default=ROOT / "models", help="the repository")
    parser.add_argument("--model", default="relevance", help="the model that is asked")
    parser.add_argument("--proxy", choices=["haproxy", "nginx"], default="haproxy")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        replicas = [Replica(options.server, options.models, folder / f"{number}.log") for number in range(3)]
        for replica in replicas:
            stack.callback(replica.end)
            replica.start()
        alone = f"http://{replicas[0].address}"
        with Client(alone, options.model) as client, httpx.Client(base_url=alone, timeout=60.0) as plain:
            expected = [
                client.score(prompts=group(number)[0], responses=group(number)[1]).rewards
                if number % 2
                else post_once(plain, options.model, number)
                for number in range(min(options.requests, PERIOD))
            ]
        counts = Counts()
        over = threading.Event()
        url = stack.enter_context(balancer(options.proxy, replicas, folder))
        own = stack.enter_context(Client(url, options.model))
        limits = httpx.Limits(max_connections=options.clients)
        http = stack.enter_context(httpx.Client(base_url=url, timeout=300.0, limits=limits))
        pool = stack.enter_context(ThreadPoolExecutor(options.clients))
        rolling = stack.enter_context(ThreadPoolExecutor(1)).submit(roll, replicas, over)
        begun = time.monotonic()
        futures = []
        for number in range(options.requests):
            rewards = expected[number % PERIOD]
            if number % 2:
                futures.append(pool.submit(own_client, own, number, rewards, counts))
            else:
                futures.append(pool.submit(once, http, options.model, number, rewards, counts))
        for future in futures:
            future.result()
        seconds = time.monotonic() - begun
        over.set()
        restarts, failed = rolling.result()
        hits, misses = (
            sum(replica.counted(f"karat_cache_{what}_total") for replica in replicas) for what in ("hits", "misses")
        )
    for why in sorted(set(counts.lost))[:10]:
        print(f"  {why}", file=sys.stderr)
    print(
        f"{options.proxy}: {len(counts.lost)} of {options.requests} requests lost, {counts.wrong} rewards wrong, "
        f"{restarts} restarts in {seconds:.0f} s, {len(failed)} of them failed; "
        f"{hits / max(1.0, hits + misses):.0%} of what the replicas scored since their start was known"
    )
    return 1 if counts.lost or counts.wrong or failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
