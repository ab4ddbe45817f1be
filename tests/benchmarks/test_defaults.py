"""Defaults before and now are compared on the same draws, and every set and size counts the same."""

import numpy as np
import pytest

from benchmarks import defaults


def one(name, size, draw, before, now):
    """Build a draw from (log loss, accuracy) of both sides."""
    sides = {
        side: {"best": "linear", "log_loss": log_loss, "accuracy": accuracy, "seconds": 1.0}
        for side, (log_loss, accuracy) in {"before": before, "now": now}.items()
    }
    return {"set": name, "size": size, "draw": draw, **sides}


DRAWS = [
    one("cats", 40, 0, (0.4, 0.80), (0.2, 0.82)),
    one("cats", 40, 1, (0.4, 0.90), (0.2, 0.90)),
    one("cells", 0, 0, (0.8, 0.70), (0.8, 0.60)),
    one("cells", 0, 1, (0.8, 0.70), (0.8, 0.60)),
]


def test_the_mean_log_loss_is_taken_over_sets_and_sizes():
    found = defaults.summarize([*DRAWS, one("cats", 40, 2, (0.4, 0.85), (0.2, 0.85))])
    assert found["log_loss_ratio"] == pytest.approx((0.2 + 0.8) / (0.4 + 0.8), abs=1e-4)
    assert found["cases"]["cats 40"]["draws"] == 3


def test_differences_are_taken_within_a_draw():
    cats, cells = defaults.summarize(DRAWS)["cases"].values()
    assert cats["log_loss_ratio"] == 0.5
    assert cats["accuracy_difference"] == pytest.approx(0.01)
    assert cats["accuracy_error"] == pytest.approx(0.01)  # of 0.02 and 0.00
    assert (cells["accuracy_difference"], cells["accuracy_error"]) == (pytest.approx(-0.1), 0.0)


def test_the_table_has_a_line_for_each_set_and_size():
    shown = defaults.table(defaults.summarize(DRAWS))
    assert shown.row_count == 2
    assert "83.3%" in str(shown.title)


def test_pools_have_every_class_and_leave_the_rest_for_the_test():
    y = np.repeat([0, 1, 2], [100, 60, 10])
    pool, test = defaults.draw_pool(y, 40, seed=1)
    assert np.bincount(y[pool]).min() >= 3
    assert sorted([*pool, *test]) == list(range(170))


def test_pools_that_are_too_small_are_refused():
    with pytest.raises(ValueError, match="5 photos are too few for 2 classes"):
        defaults.draw_pool(np.repeat([0, 1], 20), 5, 0)
