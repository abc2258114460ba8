"""Scores Parquet files on a Ray cluster, file by file, so that a run which was killed goes on.

    from karat_client.ray_parquet import score_files

    report = score_files(
        sorted(glob("/data/rollouts/*.parquet")), "/data/scored",
        url=["http://node1:8080", "http://node2:8080"], model="assistant", workers=16,
    )

Each file becomes one of the same name in the output's folder, with the columns of `ray_data.ScoreBatches`. A file is
there when it is whole: it is written under another name first. Files that are there are passed over, so the same call
goes on where an earlier one ended; a worker that vanishes with its node is replaced, and its file begun anew.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from glob import escape, glob
from pathlib import Path
from typing import Any
from uuid import uuid4

from karat_client.ray_data import ScoreBatches, ScoreBeside


@dataclass(frozen=True)
class Report:
    """What a run did."""

    files: int
    """How many files were scored."""
    passed_over: int
    """How many were there already."""
    rows: int
    """How many rows the scored files have."""
    seconds: float
    """How long it took."""


def score_files(
    files: Sequence[str],
    folder: str,
    *,
    workers: int,
    batch_rows: int = 1024,
    num_cpus: float = 0.1,
    num_gpus: float = 0.0,
    progress: Callable[[Report], None] | None = None,
    **scorer: Any,
) -> Report:
    """Scores every file that the folder, which all nodes see, doesn't hold yet.

    `scorer` is what `ScoreBatches` takes, or with `serve` what `ScoreBeside` takes. `progress` is told after each file.
    Raises what scoring raises, ValueError when two files have one name, and FileNotFoundError.
    """
    import ray

    names = [Path(file).name for file in files]
    if len(set(names)) != len(names):
        raise ValueError("two files have the same name, and would become one; rename them")
    begun = time.monotonic()
    os.makedirs(folder, exist_ok=True)
    left = [file for file in files if not os.path.exists(_target(file, folder))]
    passed_over = len(files) - len(left)
    report = Report(0, passed_over, 0, 0.0)
    if not left:
        return report
    # A worker that dies is started again, and what it was doing is done again: a file's rows appear all at once.
    options = {"num_cpus": num_cpus, "num_gpus": num_gpus, "max_restarts": -1, "max_task_retries": -1}
    worker = ray.remote(**options)(FileScorer)
    pool = [worker.remote(batch_rows, scorer) for _ in range(min(workers, len(left)))]
    waiting = iter(left)
    running: dict[Any, Any] = {}

    def begin(actor: Any) -> None:
        file = next(waiting, None)
        if file is not None:
            running[actor.score.remote(os.path.abspath(file), os.path.abspath(_target(file, folder)))] = actor

    for actor in pool:
        begin(actor)
    try:
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            actor = running.pop(done)
            rows = int(ray.get(done))
            report = Report(report.files + 1, passed_over, report.rows + rows, time.monotonic() - begun)
            if progress is not None:
                progress(report)
            begin(actor)
    finally:
        for actor in pool:
            ray.kill(actor)
    # What workers left that vanished with their nodes.
    for file in left:
        for unfinished in glob(f"{escape(_target(file, folder))}.*.unfinished"):
            os.remove(unfinished)
    return report


class FileScorer:
    """Scores one file after another; Ray's actor."""

    def __init__(self, batch_rows: int, scorer: dict[str, Any]) -> None:
        self._batch_rows = batch_rows
        self._score = ScoreBeside(**scorer) if "serve" in scorer else ScoreBatches(**scorer)

    def score(self, file: str, target: str) -> int:
        """Writes the file with its new columns to `target`, and tells its rows. Does nothing when it is there."""
        import pyarrow as pa
        from pyarrow import parquet

        source = parquet.ParquetFile(file)
        if os.path.exists(target):
            return int(source.metadata.num_rows)
        # Of two that write the same file, each has a name of its own, and the last to be done wins with the same rows.
        unfinished = f"{target}.{uuid4().hex}.unfinished"
        rows = 0
        writer = None
        try:
            for batch in source.iter_batches(batch_size=self._batch_rows):
                scored = self._score(batch.to_pydict())
                table = pa.table(_typed(scored, batch, pa))
                if writer is None:
                    writer = parquet.ParquetWriter(unfinished, table.schema)
                writer.write_table(table)
                rows += len(table)
            if writer is None:
                parquet.write_table(pa.table(_typed(self._score(_empty(source)), source.schema_arrow, pa)), unfinished)
            else:
                writer.close()
            os.replace(unfinished, target)
        finally:
            if os.path.exists(unfinished):
                os.remove(unfinished)
        return rows


def _target(file: str, folder: str) -> str:
    return os.path.join(folder, Path(file).name)


def _empty(source: Any) -> dict[str, list[Any]]:
    return {name: [] for name in source.schema_arrow.names}


def _typed(columns: dict[str, list[Any]], source: Any, pa: Any) -> dict[str, Any]:
    """Columns with their types: those of the file as they were, and the same new ones for each batch."""
    schema = source if isinstance(source, pa.Schema) else source.schema
    new = {"_model_version": pa.string(), "_refusal": pa.string()}

    def kind(name: str) -> Any:
        if name in schema.names:
            return schema.field(name).type
        return next((kind for suffix, kind in new.items() if name.endswith(suffix)), pa.float64())

    return {name: pa.array(values, kind(name)) for name, values in columns.items()}
