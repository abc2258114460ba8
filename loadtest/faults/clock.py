"""A clock that jumps, as after a correction or a pause of the machine.

Needs libfaketime (Debian's package `faketime`).
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from loadtest.faults.ground import MODEL, Broken, Fault, Ground, Karat, Skipped, serving

PLACES = ("/usr/lib", "/usr/local/lib")
# Hours by which the clock jumps, one after another.
JUMPS = (24, -48, 24 * 365, 0)
ROWS = 200


def library() -> Path:
    """libfaketime's file."""
    for place in PLACES:
        for found in Path(place).rglob("libfaketime.so.1"):
            return found
    raise Skipped("there is no libfaketime; on Debian: apt-get install faketime")


def is_done(karat: Karat, job: str) -> bool:
    """Whether a job is done."""
    return bool(karat.request("GET", job)[1]["state"] == "done")


def jumps(ground: Ground) -> str:
    """Lets the wall clock jump under a server that scores, works on jobs and writes down runs."""
    ground.lay()
    clock = ground.folder / "clock"
    clock.write_text("+0")
    environment = {
        "LD_PRELOAD": str(library()),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        # As a real one does: the time since the start knows no jumps.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    flags = ["--calibration-seconds", "0", "--state", str(ground.folder / "state")]
    created = []
    with serving(ground, *flags, environment=environment) as karat:
        for jump in (0, *JUMPS):
            clock.write_text(f"{jump:+d}h" if jump else "+0")
            karat.check()
            inputs = [{"text": str(10 + row)} for row in range(ROWS)]
            status, job = karat.request("POST", "/v1/jobs", {"model": MODEL, "run": "jump", "inputs": inputs})
            if status != 202:
                raise Broken(f"a job answers {status}: {job}")
            created.append(job["created"])
            karat.wait(partial(is_done, karat, f"/v1/jobs/{job['id']}"), f"{jump} h: the job")
            timed = {"model": MODEL, "timeout_ms": 20_000, "inputs": [{"text": str(time.monotonic_ns())}]}
            status, reply = karat.request("POST", "/v1/score", timed)
            if status != 200:
                raise Broken(f"a request with a timeout answers {status} after {jump} h: {reply}")
        samples = karat.request("GET", "/v1/runs/jump")[1]["samples"]
        if samples != ROWS * len(created):
            raise Broken(f"the run knows {samples} samples of {ROWS * len(created)}")
    far = max(created) - min(created)
    if far < 24 * 3600 * 1000:
        raise Skipped("libfaketime changed no time here")
    return f"jumps to {', '.join(f'{jump:+d} h' for jump in JUMPS)}: scores, timeouts, jobs and runs went on"


FAULTS = [Fault("clock jumps", jumps)]
