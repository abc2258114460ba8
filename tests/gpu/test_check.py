"""What the GPU check computes, without a GPU or a server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest import repository
from tests.gpu import bundle, check, findings, pieces


class TestPieces:
    @pytest.fixture(autouse=True)
    def _bundle(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        self.bundle, self.target = self.folder / "bundle", self.folder / "target"
        self.content = os.urandom(10_000)
        program = self.folder / "program"
        program.write_bytes(self.content)
        program.chmod(0o755)
        empty = self.folder / "empty"
        empty.touch()
        pieces.pack({"bin/program": program, "empty": empty}, self.bundle, largest=4000)

    def test_what_is_packed_comes_back(self) -> None:
        sizes = [path.stat().st_size for path in self.bundle.glob("*.xz.*")]
        assert len(sizes) >= 4
        assert max(sizes) <= 4000
        program, empty = pieces.unpack(self.bundle, self.target)
        assert program.read_bytes() == self.content
        assert os.access(program, os.X_OK)
        assert empty.read_bytes() == b""

    def test_a_file_that_was_changed_is_made_anew(self) -> None:
        program, _ = pieces.unpack(self.bundle, self.target)
        program.write_bytes(b"half")
        pieces.unpack(self.bundle, self.target)
        assert program.read_bytes() == self.content

    def test_a_missing_or_damaged_piece_is_named(self) -> None:
        piece = self.bundle / "bin-program.xz.001"
        data = bytearray(piece.read_bytes())
        data[100] ^= 255
        piece.write_bytes(data)
        with pytest.raises(pieces.Damaged):
            pieces.unpack(self.bundle, self.target)
        piece.unlink()
        with pytest.raises(pieces.Damaged, match=r"bin-program\.xz\.001"):
            pieces.unpack(self.bundle, self.target)
        assert not (self.target / "bin/program").exists()
        with pytest.raises(pieces.Damaged, match="make the bundle"):
            pieces.unpack(self.folder / "nowhere", self.target)


class TestComparisons:
    def test_an_order_counts_only_where_it_was_clear(self) -> None:
        expected = [1.0, 2.0, 2.01, 5.0]
        found = [1.0, 2.02, 2.0, 0.5]
        comparison = findings.compare(expected, found, [0, 0, 0, 0], 2e-2)
        # The second and third are too close to have an order; the fourth fell below all.
        assert (comparison.clear, comparison.swapped) == (5, 3)
        assert comparison.largest == pytest.approx(4.5)

    def test_only_answers_to_one_prompt_have_an_order(self) -> None:
        comparison = findings.compare([1.0, 2.0], [2.0, 1.0], [0, 1], 1e-3)
        assert (comparison.clear, comparison.swapped) == (0, 0)

    def test_what_is_no_number_is_refused(self) -> None:
        with pytest.raises(ValueError, match="finite"):
            findings.compare([1.0], [float("nan")], [0], 1e-3)
        with pytest.raises(ValueError, match="shorter"):
            findings.compare([1.0], [], [0], 1e-3)


class TestTables:
    def test_only_what_must_hold_fails_the_check(self) -> None:
        table = findings.Table()
        table.add("slow", "0.1", ">= 2", holds=False)
        assert not table.failed
        table.must("wrong", "1", "0", holds=False)
        assert table.failed
        assert "MISSED" in str(table)


class TestRepositories:
    @pytest.fixture(autouse=True)
    def _source(self, tmp_path: Path) -> None:
        self.source, self.target = tmp_path / "source", tmp_path / "new/model"
        self.source.mkdir()
        (self.source / "model.onnx").write_bytes(b"graph")

    def on(self, manifest: str, provider: str) -> str:
        (self.source / "model.toml").write_text(manifest)
        repository.on_provider(self.source, self.target, provider)
        return (self.target / "model.toml").read_text()

    def test_the_provider_takes_the_place_of_those_that_were_written(self) -> None:
        manifest = 'head = "scalar"\nproviders = ["cpu"]\n[graph]\nfile = "model.onnx"\n'
        assert self.on(manifest, "cuda") == manifest.replace('"cpu"', '"cuda"')
        assert (self.source / "model.toml").read_text() == manifest

    def test_a_manifest_without_providers_gets_one_above_its_tables(self) -> None:
        assert self.on('[graph]\nfile = "a"\n', "cuda") == 'providers = ["cuda"]\n[graph]\nfile = "a"\n'

    def test_engines_of_an_earlier_run_stay_and_a_new_graph_takes_the_old_ones_place(self) -> None:
        self.on("", "tensorrt")
        (self.target / "tensorrt").mkdir()
        (self.source / "model.onnx").unlink()
        (self.source / "model.onnx").write_bytes(b"another graph")
        self.on("", "tensorrt")
        assert (self.target / "tensorrt").is_dir()
        assert (self.target / "model.onnx").read_bytes() == b"another graph"
        assert not (self.target / "model.onnx").is_symlink()


class TestSharing:
    def test_only_the_row_of_the_target_is_judged(self) -> None:
        table = findings.Table()
        row = {"prompt": 1024, "candidates": 16, "response": 128, "speedup": 2.9, "bound": 6.0}
        check.add_sharing(table, "smol-reward", row, has_target=True)
        check.add_sharing(table, "smol-reward", row, has_target=False)
        assert [found[3] for found in table.rows] == ["MISSED", ""]
        assert not table.failed

    def test_without_a_decoder_a_line_says_so(self) -> None:
        nowhere = Path("/nowhere")
        kit = check.Kit(
            karat=nowhere,
            loadtest=nowhere,
            onnxruntime=nowhere,
            models={},
            decoders=nowhere,
            workload=nowhere,
            work=nowhere,
            provider="cuda",
            quick=True,
        )
        table = findings.Table()
        assert check.check_sharing(kit, table) == {}
        assert "holds no decoder" in str(table)


class TestBundle:
    @pytest.mark.parametrize("program", [["check.py"], ["-m", "loadtest.decoder"]])
    def test_the_programs_that_are_packed_need_nothing_else(self, program: list[str], tmp_path: Path) -> None:
        bundle.write_program(tmp_path)
        # -S: without the packages of this Python.
        command = [sys.executable, "-S", *program, "--help"]
        subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
