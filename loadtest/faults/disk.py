"""A disk that is full, under what lasts and under what is kept beside models."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loadtest.faults.ground import MODEL, Broken, Fault, Ground, Karat, Skipped, serving

MEBIBYTES = 4


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A disk of a few mebibytes at that place."""
    folder.mkdir(parents=True, exist_ok=True)
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    if mount is None or unmount is None:
        raise Skipped("there is no mount or no umount")
    options = ["-t", "tmpfs", "-o", f"size={MEBIBYTES}m", "none", str(folder)]
    mounted = subprocess.run([mount, *options], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        raise Skipped(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run([unmount, str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Fills the disk with a file."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            return filler


def tell(karat: Karat, number: int) -> int:
    """Scores for a run and reports what came of it; the status of the report."""
    body = {"model": MODEL, "run": "full", "step": number, "inputs": [{"text": f"{10 + number % 280}"}]}
    status, reply = karat.request("POST", "/v1/score", body)
    if status != 200:
        raise Broken(f"scoring answers {status} while the disk is full: {reply}")
    outcomes = {"outcomes": [{"request": reply["id"], "value": 1}]}
    return karat.request("POST", "/v1/runs/full/outcomes", outcomes)[0]


def under_state(ground: Ground) -> str:
    """Fills the disk of `--state`."""
    ground.lay()
    state = ground.folder / "state"
    flags = ["--calibration-seconds", "0", "--state", str(state)]
    with small_disk(state):
        with serving(ground, *flags) as karat:
            if tell(karat, 0) != 200:
                raise Broken("an outcome is refused although there is room")
            filler = fill(state)
            statuses = [tell(karat, number) for number in range(1, 200)]
            accepted = 1 + sum(status == 200 for status in statuses)
            refused = [status for status in statuses if status != 200]
            if not refused:
                raise Broken("200 outcomes were acknowledged on a full disk")
            if any(status != 507 for status in refused):
                raise Broken(f"what the disk doesn't take is answered with {set(refused)}")
            karat.check()
            filler.unlink()
            accepted += sum(tell(karat, number) == 200 for number in range(200, 210))
        with serving(ground, *flags) as karat:
            found = karat.request("GET", "/v1/runs/full")[1]["models"][0]["outcomes"]["samples"]
            if found != accepted:
                raise Broken(f"{accepted} outcomes were acknowledged, and {found} are there after a restart")
    return (
        f"scoring went on, {len(refused)} of 199 outcomes were refused with {sorted(set(refused))}, and all {accepted} "
        "that were acknowledged are there after a restart"
    )


def under_models(ground: Ground) -> str:
    """Fills the disk that the models lie on, before anything was measured."""
    with small_disk(ground.models):
        ground.lay()
        fill(ground.models)
        with serving(ground, "--calibration-seconds", "0.2", "--strict") as karat:
            karat.check()
            status, reply = karat.load()
            if status != 200:
                raise Broken(f"loading answers {status}: {reply}")
            karat.check()
    return "models were measured, served and loaded anew; what was measured wasn't kept"


FAULTS = [
    Fault("a full disk under what lasts", under_state),
    Fault("a full disk under models", under_models),
]
