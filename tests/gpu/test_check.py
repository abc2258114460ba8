"""What the GPU check computes, without a GPU or a server."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from loadtest import repository
from tests.gpu import bundle, check, pieces


class Pieces(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
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
        self.assertGreaterEqual(len(sizes), 4)
        self.assertLessEqual(max(sizes), 4000)
        program, empty = pieces.unpack(self.bundle, self.target)
        self.assertEqual(program.read_bytes(), self.content)
        self.assertTrue(os.access(program, os.X_OK))
        self.assertEqual(empty.read_bytes(), b"")

    def test_a_file_that_was_changed_is_made_anew(self) -> None:
        program, _ = pieces.unpack(self.bundle, self.target)
        program.write_bytes(b"half")
        pieces.unpack(self.bundle, self.target)
        self.assertEqual(program.read_bytes(), self.content)

    def test_a_missing_or_damaged_piece_is_named(self) -> None:
        piece = self.bundle / "bin-program.xz.001"
        data = bytearray(piece.read_bytes())
        data[100] ^= 255
        piece.write_bytes(data)
        with self.assertRaises(pieces.Damaged):
            pieces.unpack(self.bundle, self.target)
        piece.unlink()
        with self.assertRaisesRegex(pieces.Damaged, "bin-program.xz.001"):
            pieces.unpack(self.bundle, self.target)
        self.assertFalse((self.target / "bin/program").exists())
        with self.assertRaisesRegex(pieces.Damaged, "make the bundle"):
            pieces.unpack(self.folder / "nowhere", self.target)


class Comparisons(unittest.TestCase):
    def test_an_order_counts_only_where_it_was_clear(self) -> None:
        expected = [1.0, 2.0, 2.01, 5.0]
        found = [1.0, 2.02, 2.0, 0.5]
        comparison = check.compare(expected, found, [0, 0, 0, 0], 2e-2)
        # The second and third are too close to have an order; the fourth fell below all.
        self.assertEqual((comparison.clear, comparison.swapped), (5, 3))
        self.assertAlmostEqual(comparison.largest, 4.5)

    def test_only_answers_to_one_prompt_have_an_order(self) -> None:
        comparison = check.compare([1.0, 2.0], [2.0, 1.0], [0, 1], 1e-3)
        self.assertEqual((comparison.clear, comparison.swapped), (0, 0))

    def test_what_is_no_number_is_refused(self) -> None:
        with self.assertRaises(ValueError):
            check.compare([1.0], [float("nan")], [0], 1e-3)
        with self.assertRaises(ValueError):
            check.compare([1.0], [], [0], 1e-3)


class Tables(unittest.TestCase):
    def test_only_what_must_hold_fails_the_check(self) -> None:
        table = check.Table()
        table.add("slow", "0.1", ">= 2", holds=False)
        self.assertFalse(table.failed)
        table.must("wrong", "1", "0", holds=False)
        self.assertTrue(table.failed)
        self.assertIn("MISSED", str(table))


class Repositories(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.source, self.target = Path(folder.name) / "source", Path(folder.name) / "new/model"
        self.source.mkdir()
        (self.source / "model.onnx").write_bytes(b"graph")

    def on(self, manifest: str, provider: str) -> str:
        (self.source / "model.toml").write_text(manifest)
        repository.on_provider(self.source, self.target, provider)
        return (self.target / "model.toml").read_text()

    def test_the_provider_takes_the_place_of_those_that_were_written(self) -> None:
        manifest = 'head = "scalar"\nproviders = ["cpu"]\n[graph]\nfile = "model.onnx"\n'
        self.assertEqual(self.on(manifest, "cuda"), manifest.replace('"cpu"', '"cuda"'))
        self.assertEqual((self.source / "model.toml").read_text(), manifest)

    def test_a_manifest_without_providers_gets_one_above_its_tables(self) -> None:
        self.assertEqual(self.on('[graph]\nfile = "a"\n', "cuda"), 'providers = ["cuda"]\n[graph]\nfile = "a"\n')

    def test_engines_of_an_earlier_run_stay_and_a_new_graph_takes_the_old_ones_place(self) -> None:
        self.on("", "tensorrt")
        (self.target / "tensorrt").mkdir()
        (self.source / "model.onnx").unlink()
        (self.source / "model.onnx").write_bytes(b"another graph")
        self.on("", "tensorrt")
        self.assertTrue((self.target / "tensorrt").is_dir())
        self.assertEqual((self.target / "model.onnx").read_bytes(), b"another graph")
        self.assertFalse((self.target / "model.onnx").is_symlink())


class Sharing(unittest.TestCase):
    def test_only_the_row_of_the_target_is_judged(self) -> None:
        table = check.Table()
        row = {"prompt": 1024, "candidates": 16, "response": 128, "speedup": 2.9, "bound": 6.0}
        check.add_sharing(table, "smol-reward", row, has_target=True)
        check.add_sharing(table, "smol-reward", row, has_target=False)
        self.assertEqual([found[3] for found in table.rows], ["MISSED", ""])
        self.assertFalse(table.failed)

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
        table = check.Table()
        self.assertEqual(check.check_sharing(kit, table), {})
        self.assertIn("holds no decoder", str(table))


class Bundle(unittest.TestCase):
    def test_the_programs_that_are_packed_need_nothing_else(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for source in bundle.SOURCES:
                target = Path(folder) / source
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(Path(source).read_bytes())
            # -S: without the packages of this Python.
            subprocess.run(
                [sys.executable, "-S", "-m", "loadtest.decoder", "--help"],
                cwd=folder,
                check=True,
                stdout=subprocess.DEVNULL,
            )


if __name__ == "__main__":
    unittest.main()
