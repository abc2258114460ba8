"""What the GPU check computes, without a GPU or a server."""

from __future__ import annotations

import os
import tempfile
import unittest
from pathlib import Path

from tests.gpu import check, pieces


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


if __name__ == "__main__":
    unittest.main()
