"""The study's arithmetic, against values that were computed elsewhere or can be seen by hand."""

from __future__ import annotations

import numpy as np
import pytest

from study.curves import best_of_n_weights, bootstrap, divergence, expected
from study.ensembles import Pool, Setting, draw_pairs
from study.report import BLOCK, filled
from tools import bradley_terry


class TestCurves:
    def test_best_of_n_is_estimated_without_bias(self) -> None:
        proxy = np.array([0.2, 1.4, -0.5, 0.9, 2.1])
        gold = np.array([0.1, 0.8, -0.2, 1.0, 0.3])
        found = expected(proxy, gold, 5)
        np.testing.assert_allclose(found[[0, 1, 2, 4]], [0.4, 0.57, 0.52, 0.3])
        np.testing.assert_allclose(best_of_n_weights(5, 3)[1:, :], [[0, 0.1, 0.2, 0.3, 0.4], [0, 0, 0.1, 0.3, 0.6]])

    def test_the_first_of_equal_rewards_is_chosen(self) -> None:
        assert expected(np.array([1.0, 1.0]), np.array([0.25, 0.75]), 2)[1] == 0.25

    def test_an_answer_that_is_not_scored_is_chosen_last(self) -> None:
        found = expected(np.array([-np.inf, 0.0, 1.0]), np.array([9.0, 1.0, 2.0]), 3)
        np.testing.assert_allclose(found, [4.0, (1 + 2 + 2) / 3, 2.0])

    def test_divergence_is_the_published_bound(self) -> None:
        found = divergence(np.array([1, 2, 4, 16, 12500]))
        np.testing.assert_allclose(found, [0, 0.193147, 0.636294, 1.835089, 8.433564], atol=1e-6)

    def test_resampling_keeps_what_does_not_vary(self) -> None:
        np.testing.assert_allclose(bootstrap(np.full((3, 4, 2), 0.5), 20), np.full((20, 2), 0.5))
        by_prompt = np.tile(np.arange(400.0), (2, 1))
        found = bootstrap(by_prompt, 500)
        # The standard error of a mean of 400 numbers.
        assert found.std() / (by_prompt.std() / 20) == pytest.approx(1.0, abs=0.1)


class TestTraining:
    def test_both_solvers_find_the_same_heads(self) -> None:
        differences = np.random.default_rng(0).normal(size=(60, 20)) + 0.2
        for ridge in (1.0, 100.0):
            np.testing.assert_allclose(
                bradley_terry.fit(differences, ridge),
                bradley_terry.fit_few_features(differences, ridge),
                atol=1e-9,
            )

    def test_pairs_follow_the_judge_and_as_many_are_flipped_as_asked(self) -> None:
        gold = np.random.default_rng(1).random(40)
        rows = [np.arange(20), np.arange(20, 40)]
        source = Pool(np.zeros((40, 1)), np.ones(1), gold, rows)
        for flipped in (0.0, 0.25):
            random = np.random.default_rng(2)
            chosen, rejected = draw_pairs(source, Setting(True, flipped, 4000), random)
            assert float((gold[chosen] < gold[rejected]).mean()) == pytest.approx(flipped, abs=0.03)
            np.testing.assert_array_equal(chosen < 20, rejected < 20)


class TestPages:
    def test_only_what_stands_between_the_marks_is_replaced(self) -> None:
        page = "a\n<!-- study:farming -->\nold\n<!-- /study -->\nb"
        transforms = {n: {"correct": 1, "padded": [2]} for n in ("raw", "clip", "delta", "clip_then_delta")}
        report = {"farming": {"repeats": [0], "transforms": transforms}}
        new = filled(page, report)
        assert new.startswith("a\n<!-- study:farming -->\n| |")
        assert new.endswith("\nb")
        assert "old" not in new
        assert filled(new, report) == new
        assert BLOCK.search("no marks") is None
