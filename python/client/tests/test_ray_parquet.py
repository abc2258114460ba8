"""Files that are scored one by one; Ray itself isn't needed for one worker's part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from in_memory import Server, reward_of

pa: Any = pytest.importorskip("pyarrow")
parquet: Any = pytest.importorskip("pyarrow.parquet")

from karat_client import errors  # noqa: E402
from karat_client.ray_parquet import FileScorer  # noqa: E402


@pytest.fixture
def scorer(in_memory: Server) -> FileScorer:
    return FileScorer(2, {"url": "http://karat", "model": "m"})


def write(path: Path, responses: list[str]) -> str:
    columns = {
        "id": pa.array(range(len(responses)), pa.int32()),
        "prompt": pa.array(["p"] * len(responses), pa.string()),
        "response": pa.array(responses, pa.string()),
    }
    parquet.write_table(pa.table(columns), path)
    return str(path)


def test_a_file_keeps_its_rows_and_types(tmp_path: Path, scorer: FileScorer) -> None:
    target = tmp_path / "scored.parquet"
    assert scorer.score(write(tmp_path / "rows.parquet", ["a", "b", "c"]), str(target)) == 3
    scored = parquet.read_table(target)
    assert scored.column("reward").to_pylist() == [reward_of("a"), reward_of("b"), reward_of("c")]
    assert scored.schema.field("id").type == pa.int32()
    assert scored.schema.field("reward_model_version").type == pa.string()


def test_an_empty_file_has_the_columns(tmp_path: Path, scorer: FileScorer) -> None:
    target = tmp_path / "scored.parquet"
    assert scorer.score(write(tmp_path / "rows.parquet", []), str(target)) == 0
    assert "reward" in parquet.read_table(target).column_names


def test_what_is_there_is_not_scored_again(tmp_path: Path, scorer: FileScorer, in_memory: Server) -> None:
    file, target = write(tmp_path / "rows.parquet", ["a"]), tmp_path / "scored.parquet"
    target.write_bytes(b"from an earlier run")
    assert scorer.score(file, str(target)) == 1
    assert target.read_bytes() == b"from an earlier run"
    assert in_memory.requests == []


def test_a_file_that_fails_leaves_nothing(tmp_path: Path, scorer: FileScorer) -> None:
    target = tmp_path / "scored.parquet"
    with pytest.raises(errors.SampleTooLong):
        scorer.score(write(tmp_path / "rows.parquet", ["a", "b", "long"]), str(target))
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]
