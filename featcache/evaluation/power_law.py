"""Power laws of learning curves: what more training photos would give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from featcache.evaluation.bootstrap import resampled

_Floats = NDArray[np.float64]

_EXPONENTS = np.geomspace(0.05, 2.0, 60)
_RESAMPLES = 400
_FEWEST_SIZES = 3
_TINY = 1e-9


class PowerLaws(NamedTuple):
    """Curves ``amplitude * (n / scale) ** -exponent + floor``, an array of shape (r,) for each parameter."""

    amplitude: _Floats
    exponent: _Floats
    floor: _Floats
    scale: float

    def __call__(self, n: float) -> _Floats:
        """Return the value of each curve at `n` photos, (r,)."""
        return self.amplitude * (n / self.scale) ** -self.exponent + self.floor


class Forecast(NamedTuple):
    """What twice as many training photos would give.

    Attributes
    ----------
    photos : float
        Twice the largest number of photos of the curve.
    value : float
        The expected error or loss there: the measured one at half of it, less the fall of the fitted curve.
    spread : float
        Of that fall, from two parts as the root of their squares' sum: half of the width of its 95% bootstrap
        interval, and with four sizes or more by how much the curve of all but the largest misses the largest.
    falls : float
        Share of the resamples in which the error at the largest size is below that at the smallest.
    exponent, floor : float
        Of the fitted power law.
    """

    photos: float
    value: float
    spread: float
    falls: float
    exponent: float
    floor: float

    @property
    def is_trend(self) -> bool:
        """Whether more photos gave a lower error beyond chance (one-sided, 2.5%)."""
        return self.falls >= 0.975


def fit_power_laws(n: _Floats, errors: _Floats) -> PowerLaws:
    """Fit ``a * n ** -b + c`` to learning curves.

    The form is that of Hestness et al., Deep learning scaling is predictable, empirically, arXiv:1712.00409
    (2017); see Viering and Loog, The shape of learning curves: a review, arXiv:2103.10948 (2021). For each
    b from 0.05 to 2, a and c of 0 or more are the least squares of relative errors; the best b is taken.

    Parameters
    ----------
    n : array of shape (s,)
        Numbers of photos, 3 or more.
    errors : array of shape (r, s)
        0 or more, of r curves.
    """
    scale = float(n[-1])
    best = np.full(len(errors), np.inf)
    found = np.zeros((3, len(errors)))
    weights = 1 / np.maximum(errors.mean(axis=0), _TINY) ** 2
    for exponent in _EXPONENTS:
        x = (n / scale) ** -exponent
        amplitude, floor = _non_negative_line(x, errors, weights)
        misfit = (weights * (amplitude[:, None] * x + floor[:, None] - errors) ** 2).sum(axis=1)
        better = misfit < best
        found[:, better] = np.stack([amplitude, np.full(len(errors), exponent), floor])[:, better]
        best = np.minimum(best, misfit)
    amplitude, exponent, floor = found
    return PowerLaws(amplitude, exponent, floor, scale)


def _non_negative_line(x: _Floats, y: _Floats, weights: _Floats) -> tuple[_Floats, _Floats]:
    """Return slope and intercept, both 0 or more, of the weighted least squares of each row of `y` on `x`."""
    w, wx, wxx = weights.sum(), weights @ x, weights @ x**2
    wy, wxy = y @ weights, y @ (weights * x)
    determinant = wxx * w - wx**2
    slope = (wxy * w - wx * wy) / determinant
    intercept = (wxx * wy - wx * wxy) / determinant
    slope, intercept = (
        np.where(intercept < 0, wxy / wxx, np.maximum(slope, 0)),
        np.where(slope < 0, wy / w, np.maximum(intercept, 0)),
    )
    return slope, intercept


def mean_errors(errors: Sequence[_Floats], weights: _Floats | None) -> _Floats:
    """Return the weighted mean over photos, and the mean over draws, of each of s arrays (d, m); (s,)."""
    return np.array([np.average(one.mean(axis=0), weights=weights) for one in errors])


def forecast(
    photos: _Floats,
    errors: Sequence[_Floats],
    groups: NDArray[np.int64],
    weights: _Floats | None = None,
    seed: int = 0,
) -> Forecast:
    """Extrapolate a learning curve to twice its photos, with the spread of resampled photos and draws.

    Parameters
    ----------
    photos : array of shape (s,)
        Numbers of training photos, increasing, 3 or more.
    errors : sequence of s arrays of shape (d, m)
        The error of every scored photo in every draw; the number of draws may differ between sizes.
    groups : array of shape (m,)
        Groups of the scored photos, which are resampled as a whole.
    weights : array of shape (m,), optional
        Weights of the scored photos.
    seed : int, default 0
    """
    measured = mean_errors(errors, weights)[None]
    curves = _resampled_curves(errors, groups, np.ones(len(groups)) if weights is None else weights, seed)
    last, twice = float(photos[-1]), 2 * float(photos[-1])
    law, laws = fit_power_laws(photos, measured), fit_power_laws(photos, curves)
    low, high = np.quantile(laws(last) - laws(twice), [0.025, 0.975])
    return Forecast(
        twice,
        max(0.0, float(measured[0, -1] - (law(last) - law(twice))[0])),
        float(np.hypot((high - low) / 2, _miss(photos, measured))),
        float((curves[:, -1] < curves[:, 0]).mean()),
        float(law.exponent[0]),
        float(law.floor[0]),
    )


def _miss(photos: _Floats, measured: _Floats) -> float:
    """Return by how much the law of all sizes but the largest misses the largest; 0 with too few sizes.

    Resampling alone says nothing of how well a power law describes the curve. Measured on 24 random halves of
    four sets of 483 to 3,000 photos: the interval of the resamples alone held the fall of the error that the
    whole set gave in 11 of them, both together in 19 (the measured fall varies by chance, too).
    """
    if len(photos) <= _FEWEST_SIZES:
        return 0.0
    law = fit_power_laws(photos[:-1], measured[:, :-1])
    return float(abs(law(float(photos[-1])) - measured[:, -1])[0])


def _resampled_curves(
    errors: Sequence[_Floats], groups: NDArray[np.int64], weights: _Floats, seed: int
) -> _Floats:
    """Return the mean error at each size in every bootstrap resample of scored groups and draws, (r, s)."""
    _, group = np.unique(groups, return_inverse=True)
    size = np.bincount(group, weights)
    sums = [np.stack([np.bincount(group, weights * row) for row in one]) for one in errors]
    rng = np.random.default_rng(seed)
    blocks = []
    for counts in resampled(len(size), _RESAMPLES, seed):
        n = counts @ size
        columns = []
        for one in sums:
            draws = rng.multinomial(len(one), np.full(len(one), 1 / len(one)), size=len(counts)) / len(one)
            columns.append((draws * (counts @ one.T)).sum(axis=1) / n)
        blocks.append(np.stack(columns, axis=1))
    return np.concatenate(blocks)
