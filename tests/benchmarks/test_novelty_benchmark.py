"""The measurements of novelty are what they say, on sets whose answer is known."""

import numpy as np
import pytest

from benchmarks.novelty import Rows, coverage, left_out, main, rejected


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 80)
    return Rows((10 * np.eye(3, 12)[labels] + rng.normal(0, 1, (240, 12))).astype(np.float32), labels)


def test_classes_far_apart_are_told_apart_whichever_is_left_out(rows):
    found = list(left_out(rows, 0))
    assert len(found) == 3
    assert min(novelty for novelty, _ in found) > 0.95


def test_known_photos_are_rejected_and_covered_at_their_levels(rows):
    draws = range(10)
    assert np.mean([rejected(rows, seed) for seed in draws]) == pytest.approx(0.05, abs=0.03)
    assert np.mean([coverage(rows, seed) for seed in draws]) == pytest.approx(0.9, abs=0.05)


def test_the_table_has_a_line_for_each_set(rows, tmp_path, capsys):
    np.savez(tmp_path / "three.npz", X=rows.X, y=rows.y)
    np.savez(tmp_path / "two.npz", X=rows.X[:160], y=rows.y[:160])
    main(["--folder", str(tmp_path), "--draws", "1"])
    three, two = capsys.readouterr().out.splitlines()
    assert three.startswith("| three | 240 / 3 |")
    assert "| – | – |" in two
