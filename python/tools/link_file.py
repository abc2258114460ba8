"""One file under two names."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def link_or_copy(source: Path, target: Path) -> None:
    """Makes `target` the same file as `source`; across file systems, a copy.

    A hard link, because ONNX Runtime may refuse weights that lie outside the
    graph's folder, where a symbolic link would lead.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
