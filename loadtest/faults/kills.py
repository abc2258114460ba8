"""kill -9 while models load, are measured, and replace each other."""

from __future__ import annotations

import http.client
import json
import random
import shutil
import threading
import time

from loadtest.faults.ground import MODEL, OTHER, Broken, Fault, Ground, Karat, serving
from loadtest.tiny import MANIFEST

# Shifts of the two manifests that take turns.
SHIFTS = (0, 100)
CLIENTS = 8
# The longest that a kill waits once there is something to kill in the middle of.
LONGEST = 1.0


def kept_files_are_whole(ground: Ground) -> None:
    """Raises Broken where a file that karat wrote itself is torn."""
    for file in ground.models.rglob("*calibration.json"):
        try:
            json.loads(file.read_text())
        except ValueError as error:
            raise Broken(f"{file.name} is torn: {error}") from error


def starts_again(ground: Ground) -> None:
    """Raises Broken unless a server starts on what was left, and scores right."""
    kept_files_are_whole(ground)
    with serving(ground, "--calibration-seconds", "0.2", "--strict") as karat:
        for model in (MODEL, OTHER):
            karat.check(model=model)


def while_loading(ground: Ground) -> str:
    """Kills a server that has just begun."""
    begun = time.monotonic()
    ground.lay()
    with serving(ground, "--calibration-seconds", "0"):
        took = time.monotonic() - begun
    for _ in range(ground.times):
        with serving(ground, "--calibration-seconds", "0", ready=False) as karat:
            time.sleep(random.uniform(0, took))
            karat.kill()
    starts_again(ground)
    return f"{ground.times} kills within {took:.2f} s of the start; the next start was ready and right"


def while_calibrating(ground: Ground) -> str:
    """Kills a server that measures its models."""
    for _ in range(ground.times):
        shutil.rmtree(ground.models, ignore_errors=True)
        ground.lay()
        with serving(ground, "--calibration-seconds", "2", ready=False) as karat:
            time.sleep(random.uniform(0.05, 2.0))
            karat.kill()
        kept_files_are_whole(ground)
    starts_again(ground)
    return f"{ground.times} kills while models were measured; no file was torn, and the next start was ready and right"


def write(ground: Ground, shift: int) -> None:
    """Puts the manifest with that shift into the model's folder at once."""
    rules = f"transforms = [{{ affine = {{ scale = 1, offset = {shift} }} }}]"
    partial = ground.models / MODEL / ".model.toml"
    partial.write_text(MANIFEST.format(rules=rules))
    partial.rename(ground.models / MODEL / "model.toml")


def replace(ground: Ground, karat: Karat, over: threading.Event) -> None:
    """Replaces the model until the server is gone."""
    turn = 0
    while not over.is_set():
        turn += 1
        write(ground, SHIFTS[turn % 2])
        try:
            karat.load()
        except (OSError, http.client.HTTPException):
            return


def ask(karat: Karat, over: threading.Event, wrong: list[str]) -> None:
    """Scores until the server is gone."""
    while not over.is_set():
        try:
            karat.check()
        except Broken as error:
            wrong.append(str(error))
        except (OSError, http.client.HTTPException):
            return


def while_replacing(ground: Ground) -> str:
    """Kills a server whose model is being replaced under load."""
    ground.lay()
    wrong: list[str] = []
    for _ in range(ground.times):
        over = threading.Event()
        with serving(ground, "--calibration-seconds", "0.2") as karat:
            threads = [threading.Thread(target=replace, args=(ground, karat, over))]
            threads += [threading.Thread(target=ask, args=(karat, over, wrong)) for _ in range(CLIENTS)]
            for thread in threads:
                thread.start()
            time.sleep(random.uniform(0, LONGEST))
            karat.kill()
            over.set()
            for thread in threads:
                thread.join()
    if wrong:
        raise Broken(f"{len(wrong)} replies were wrong before the kill: {wrong[0]}")
    starts_again(ground)
    return f"{ground.times} kills between replacements under {CLIENTS} clients; the next start was ready and right"


FAULTS = [
    Fault("kill -9 while models load", while_loading),
    Fault("kill -9 while models are measured", while_calibrating),
    Fault("kill -9 while a model is replaced", while_replacing),
]
