"""Files that are torn, gone, not to be read, or another's, under a server that runs and under one that starts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from loadtest.faults.ground import MODEL, OTHER, Broken, Fault, Ground, Skipped, serving
from loadtest.tiny import GRAPHS

FILES = ("sum.onnx", "tokenizer.json", "model.toml")
QUICK = ("--calibration-seconds", "0")


def tear(file: Path) -> None:
    """Keeps the first half, in place: whoever mapped the file finds its end gone."""
    os.truncate(file, file.stat().st_size // 2)


def remove(file: Path) -> None:
    """Takes it away."""
    file.unlink()


def lock(file: Path) -> None:
    """Makes of it what nobody can open, whatever they may do: a link to itself."""
    file.unlink()
    file.symlink_to(file.name)


def forbid(file: Path) -> None:
    """Takes away the right to read it."""
    if os.geteuid() == 0:
        raise Skipped("root reads every file; run it as another user")
    file.chmod(0)


def under(spoil: Callable[[Path], None], ground: Ground) -> str:
    """Spoils each file of a model in turn."""
    ground.lay()
    folder, kept = ground.models / MODEL, ground.folder / "kept"
    shutil.copytree(folder, kept)
    for name in FILES:
        with serving(ground, *QUICK) as karat:
            spoil(folder / name)
            karat.check()
            status, reply = karat.load()
            # A folder without its manifest is no model's any more.
            if status not in (404, 422):
                raise Broken(f"{name}: loading it anew answers {status}: {reply}")
            karat.check()
            karat.check(model=OTHER)
            if status == 422 and karat.card()["change"]["status"] != "failed":
                raise Broken(f"{name}: GET /v1/models/{MODEL} doesn't tell that it couldn't be loaded")
        with serving(ground, *QUICK) as karat:
            karat.check(model=OTHER)
            if karat.request("POST", "/v1/score", {"model": MODEL, "inputs": [{"text": "10"}]})[0] == 200:
                raise Broken(f"{name}: a server that starts serves the model")
            shutil.rmtree(folder)
            shutil.copytree(kept, folder)
            status, reply = karat.load()
            if status != 200:
                raise Broken(f"{name}: once mended, loading answers {status}: {reply}")
            karat.check()
    return (
        f"{', '.join(FILES)}, each: what was loaded went on scoring right, loading it anew was refused, the other "
        "model was served throughout, and once mended it was loaded"
    )


def swapped(ground: Ground) -> str:
    """Puts another graph in the place of the one that was loaded."""
    ground.lay()
    graph = ground.models / MODEL / "sum.onnx"
    with serving(ground, *QUICK) as karat:
        before = karat.card()["version"]
        shutil.copy(GRAPHS / "last_place.onnx", graph)
        karat.check()
        if karat.card()["version"] != before:
            raise Broken("the version changed before it was loaded")
        status, reply = karat.load()
        if status != 200 or reply["version"] == before:
            raise Broken(f"loading it answers {status}: {reply}")
        # This one gives the last number.
        if abs(karat.score("100 20") - 0.02) > 1e-4:
            raise Broken("the new version doesn't score as its graph does")
        shutil.copy(GRAPHS / "sum.onnx", graph)
        if karat.load()[1]["version"] != before:
            raise Broken("the same files make another version")
        karat.check()
    return "scores and version were the old ones until it was loaded, then the new graph's; put back, the old version's"


def torn_memory(ground: Ground) -> str:
    """Tears what karat itself keeps beside a model."""
    ground.lay()
    with serving(ground, "--calibration-seconds", "0.2"):
        pass
    kept = list((ground.models / MODEL).glob("*calibration.json"))
    if not kept:
        raise Broken("nothing is kept of what was measured")
    for file in kept:
        tear(file)
    with serving(ground, "--calibration-seconds", "0.2", "--strict") as karat:
        karat.check()
    return f"{len(kept)} files of what was measured were torn: found out anew, ready and right"


FAULTS = [
    Fault("torn files", partial(under, tear)),
    Fault("missing files", partial(under, remove)),
    Fault("files that can't be opened", partial(under, lock)),
    Fault("files that may not be read", partial(under, forbid)),
    Fault("a graph swapped for another", swapped),
    Fault("torn calibrations", torn_memory),
]
