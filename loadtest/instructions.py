"""Counts what a server executes, with Valgrind: exactly, whatever else the machine does.

Counted is what the program's threads execute themselves. What the kernel does for them, above all on sockets, is not,
and neither is how long memory lets an instruction wait.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

_THREAD = re.compile(r"^Thread (\d+):.*\(lwpid (\d+)\)", re.MULTILINE)
_COUNTED = re.compile(r"^totals: (\d+)", re.MULTILINE)


@dataclass
class Instructions:
    """The instructions of a server that is run by `command`; what Valgrind writes stands in `folder`."""

    folder: Path
    stretches: int = 0

    @property
    def command(self) -> list[str]:
        """What comes before the server's command."""
        self.folder.mkdir(parents=True, exist_ok=True)
        output = f"--callgrind-out-file={self.folder}/counted"
        return ["valgrind", "--tool=callgrind", "--separate-threads=yes", output]

    def since_last(self, process: int) -> Counter[str]:
        """By the threads' names, what they executed since this was last asked or since the start."""
        names = {}
        for number, task in _THREAD.findall(_tell(process, "v.info", "scheduler")):
            comm = Path(f"/proc/{process}/task/{task}/comm")
            # A thread that has just ended did little, and nobody asks for it by name.
            names[int(number)] = comm.read_text().strip() if comm.exists() else "ended"
        _tell(process, "dump")
        self.stretches += 1
        found: Counter[str] = Counter()
        for file in self.folder.glob(f"counted.{self.stretches}-*"):
            counted = _COUNTED.search(file.read_text())
            if counted:
                found[names.get(int(file.suffix.rpartition("-")[2]), "ended")] += int(counted[1])
        if not found:
            raise SystemExit(f"Valgrind counted nothing of process {process}")
        return found


def _tell(process: int, *command: str) -> str:
    """What Valgrind answers to a monitor command."""
    asked = ["vgdb", f"--pid={process}", *command]
    told = subprocess.run(asked, capture_output=True, text=True, check=False)
    if told.returncode != 0:
        raise SystemExit(f"{' '.join(asked)}: {told.stderr or told.stdout}")
    return told.stdout
