"""Power laws are found again in curves that follow them, and a curve without a trend is called so."""

import numpy as np
import pytest

from featcache.evaluation.power_law import fit_power_laws, forecast

N = np.array([50.0, 100.0, 200.0, 400.0])


@pytest.mark.parametrize(("a", "b", "c"), [(0.9, 0.5, 0.02), (0.5, 0.3, 0.0), (2.0, 1.0, 0.1)])
def test_a_curve_that_follows_a_power_law_is_continued(a, b, c):
    laws = fit_power_laws(N, np.array([a * N**-b + c, 2 * (a * N**-b + c)]))
    expected = a * 800**-b + c
    np.testing.assert_allclose(laws(800), [expected, 2 * expected], rtol=0.02)


@pytest.mark.parametrize("errors", [[0.0] * 4, [0.1] * 4, [0.1, 0.12, 0.15, 0.2]])
def test_a_curve_that_does_not_fall_is_continued_flat_and_above_zero(errors):
    laws = fit_power_laws(N, np.array([errors]))
    assert laws(800)[0] == pytest.approx(laws(400)[0], abs=1e-6)
    assert 0 <= laws(800)[0] <= max(errors)


def drawn(shares, draws=5, m=2000, seed=0):
    rng = np.random.default_rng(seed)
    difficulty = rng.random(m)  # the same photos are hard in every draw
    rows = [1 if share == shares[-1] else draws for share in shares]
    return [
        (difficulty + rng.normal(0, 0.02, (d, m)) < s).astype(float)
        for d, s in zip(rows, shares, strict=True)
    ]


def test_the_forecast_starts_at_what_was_measured_and_holds_the_truth():
    shares = 0.9 * N**-0.4 + 0.02
    errors = drawn(shares)
    found = forecast(N, errors, np.arange(2000))
    truth = errors[-1].mean() - (shares[-1] - (0.9 * 800**-0.4 + 0.02))
    assert found.photos == 800
    assert found.is_trend
    assert abs(found.value - truth) < max(found.spread, 0.005)
    assert 0 < found.spread < 0.03


def test_photos_of_one_group_are_resampled_together():
    errors = drawn(0.9 * N**-0.4 + 0.02)
    alone = forecast(N, errors, np.arange(2000))
    grouped = forecast(N, errors, np.arange(2000) // 400)
    assert grouped.value == alone.value
    assert grouped.spread != alone.spread
    assert forecast(N, errors, np.arange(2000)) == alone


def test_no_trend_is_no_trend():
    found = forecast(N, drawn([0.1, 0.1, 0.1, 0.1]), np.arange(2000))
    assert not found.is_trend
