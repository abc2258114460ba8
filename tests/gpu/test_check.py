"""What the GPU check computes, and its every part's way on the processor."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from safetensors import safe_open
from tokenizers import Tokenizer

from tests.gpu import bundle, check, checkpoints, findings, foreign, pieces, shapes, texts
from tests.gpu.parts import PARTS
from tests.server_files import ROOT, executable


class TestPieces:
    @pytest.fixture(autouse=True)
    def _bundle(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pieces, "CHUNK", 3000)
        self.folder = tmp_path
        self.bundle, self.target = self.folder / "bundle", self.folder / "target"
        self.content = os.urandom(10_000)
        program = self.folder / "program"
        program.write_bytes(self.content)
        program.chmod(0o755)
        empty = self.folder / "empty"
        empty.touch()
        self.pieces = pieces.pack({"bin/program": program, "empty": empty}, self.bundle, largest=4000)

    def test_what_is_packed_comes_back(self) -> None:
        sizes = [path.stat().st_size for path in self.pieces]
        assert len(sizes) >= 3
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
        piece = self.pieces[1]
        data = bytearray(piece.read_bytes())
        data[100] ^= 255
        piece.write_bytes(data)
        with pytest.raises(pieces.Damaged):
            pieces.unpack(self.bundle, self.target)
        piece.unlink()
        with pytest.raises(pieces.Damaged, match=piece.name):
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


class TestTexts:
    @pytest.mark.parametrize("name", ["minilm-l12", "roberta-large", "deberta-v3-base", "llama-8b"])
    def test_a_sample_has_the_tokens_that_its_tokenizer_counts(self, name: str) -> None:
        shape = shapes.TINY[name]
        tokenizer = Tokenizer.from_str(json.dumps(texts.vocabulary(shape).tokenizer()))
        for sample in texts.Texts(shape, seed=1).mixed(20):
            if isinstance(shape, shapes.Decoder):
                encoding = tokenizer.encode(f" {sample['prompt']} {sample['response']}")
            else:
                encoding = tokenizer.encode(sample["prompt"], sample["response"])
            assert encoding.ids == sample["ids"]


class TestCheckpoints:
    @pytest.mark.parametrize(("name", "dtype"), [("minilm-l12", "F32"), ("llama-8b", "BF16")])
    def test_weights_keep_the_size_of_states(self, name: str, dtype: str, tmp_path: Path) -> None:
        shape = shapes.TINY[name]
        checkpoints.write_checkpoint(tmp_path, shape, "cpu")
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
        assert set(index) == set(shape.tensors)
        for tensor, wanted in shape.tensors.items():
            with safe_open(str(tmp_path / index[tensor]), "np") as file:
                part = file.get_slice(tensor)
                assert part.get_dtype() == dtype
                assert tuple(part.get_shape()) == wanted
                if dtype == "F32" and len(wanted) == 2 and wanted[0] > 8 and "embed" not in tensor:
                    assert part[:].std() * math.sqrt(wanted[1]) == pytest.approx(1.0, abs=0.2)

    def test_the_largest_shape_is_that_of_llama_3_1(self) -> None:
        parameters = sum(math.prod(shape) for shape in shapes.FULL["llama-8b-writer"].tensors.values())
        # The count that its authors publish.
        assert parameters == 8_030_261_248

    @pytest.mark.parametrize(("name", "millions"), [("deberta-v3-base", 184), ("modernbert-base", 149)])
    def test_padded_encoders_have_the_sizes_that_are_published(self, name: str, millions: int) -> None:
        parameters = sum(math.prod(shape) for shape in shapes.FULL[name].tensors.values())
        assert parameters // 1_000_000 == millions


class TestForeignGraphs:
    def test_a_graph_without_its_weights_gets_random_ones_of_the_same_shapes(self, tmp_path: Path) -> None:
        graph = ROOT / "tests/graphs/exported/bert/model.onnx"
        foreign.strip(graph, tmp_path)
        assert (tmp_path / foreign.GRAPH).stat().st_size < graph.stat().st_size
        foreign.restore(tmp_path)
        restored = onnx.load(str(tmp_path / foreign.GRAPH))
        original = onnx.load(str(graph))
        shapes_of = [[(t.name, *t.dims) for t in model.graph.initializer] for model in (restored, original)]
        assert shapes_of[0] == shapes_of[1]


class TestEnding:
    def test_a_part_that_is_cut_takes_what_it_started_with_it(self, tmp_path: Path) -> None:
        told = tmp_path / "child"
        child = f"import os, time; open({str(told)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
        command = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], start_new_session=True)"
        process = subprocess.Popen([sys.executable, "-c", command, child])
        while not told.is_file() or not told.read_text():
            time.sleep(0.01)
        check.end(process.pid)
        assert process.wait() == -9
        deadline = time.monotonic() + 30
        while _lives(int(told.read_text())) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not _lives(int(told.read_text()))


class TestBundle:
    @pytest.mark.parametrize("program", [["check.py"], ["-m", "tests.gpu.peer"]])
    def test_the_programs_that_are_packed_need_nothing_else(self, program: list[str], tmp_path: Path) -> None:
        bundle.write_program(tmp_path)
        # -S: without the packages of this Python.
        command = [sys.executable, "-S", *program, "--help"]
        subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)


def test_every_part_runs_to_its_end_on_the_processor(tmp_path: Path) -> None:
    """What is not true of a processor is told and not judged; everything else must hold, or it would break there."""
    command = [
        *(sys.executable, "-m", "tests.gpu.check", "--provider", "cpu", "--tiny", "--output", str(tmp_path)),
        *("--karat", str(executable()), "--loadtest", str(_generator()), "--seconds", "600"),
        *("--onnxruntime", os.environ["KARAT_ONNXRUNTIME"]),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert {row["part"] for row in rows} == {part.name for part in PARTS}
    assert [row for row in rows if "cut" in row["found"] or "failed" in row["found"]] == []
    assert (tmp_path / "table.txt").read_text().count("\n") == len(rows) + 1


def _lives(pid: int) -> bool:
    """Whether a process is neither gone nor dead and not yet buried by whoever inherited it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def _generator() -> Path:
    """The load generator that cargo built last: with the tests, or for a measurement."""
    built = [ROOT / "target" / kind / "examples/loadtest" for kind in ("release", "debug")]
    return max((path for path in built if path.is_file()), key=lambda path: path.stat().st_mtime)
