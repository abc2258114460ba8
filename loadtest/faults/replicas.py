"""Replicas that vanish behind a balancer while clients ask. Needs HAProxy."""

from __future__ import annotations

import itertools
import shutil
import signal
import threading
import time
from contextlib import ExitStack

from karat_client import Client
from loadtest.faults.ground import MODEL, Broken, Fault, Ground, Skipped
from loadtest.rolling import Replica, balancer
from loadtest.tiny import expected

REPLICAS = 3
CLIENTS = 8
SECONDS = 20.0


def ask(client: Client, first: int, over: threading.Event, counts: dict[str, int], lost: list[str]) -> None:
    """Scores one group of candidates after another."""
    for number in itertools.count(first):
        if over.is_set():
            return
        prompt, responses = str(10 + number % 200), [str(20 + number % 100 + place) for place in range(4)]
        try:
            rewards = client.score(prompts=prompt, responses=responses).rewards
        except Exception as error:
            lost.append(f"{type(error).__name__}: {error}")
            continue
        counts["answered"] += 1
        known = [expected(f"{prompt} {response}") for response in responses]
        counts["wrong"] += any(abs(one - other) > 1e-4 for one, other in zip(rewards, known, strict=True))


def vanish(ground: Ground) -> str:
    """Kills one replica after another, and starts it again some seconds later."""
    if shutil.which("haproxy") is None:
        raise Skipped("haproxy is not installed")
    ground.lay()
    counts, over = {"answered": 0, "wrong": 0}, threading.Event()
    lost: list[str] = []
    with ExitStack() as stack:
        replicas = [
            Replica(ground.executable, ground.models, ground.folder / f"{number}.log") for number in range(REPLICAS)
        ]
        for replica in replicas:
            stack.callback(replica.end)
            replica.start()
        client = stack.enter_context(Client(stack.enter_context(balancer("haproxy", replicas, ground.folder)), MODEL))
        threads = [
            threading.Thread(target=ask, args=(client, number * 1000, over, counts, lost)) for number in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        kills, end = 0, time.monotonic() + SECONDS
        for replica in itertools.cycle(replicas):
            if time.monotonic() > end:
                break
            time.sleep(1.0)
            if replica.process is not None:
                replica.process.send_signal(signal.SIGKILL)
                replica.process.wait()
            kills += 1
            time.sleep(1.0)
            replica.start()
            # The balancer has to learn that it is back before the next one goes.
            time.sleep(2.0)
        over.set()
        for thread in threads:
            thread.join()
    if lost or counts["wrong"]:
        raise Broken(f"{len(lost)} requests lost, {counts['wrong']} wrong: {lost[:1]}")
    return f"{kills} kills behind HAProxy under karat's client: {counts['answered']} calls answered, 0 lost, 0 wrong"


FAULTS = [Fault("replicas that vanish", vanish)]
