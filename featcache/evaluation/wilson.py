"""The confidence interval of a proportion."""

from __future__ import annotations

import math

from scipy.special import ndtri


def wilson_interval(successes: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return the confidence interval of a proportion, for `successes` out of `n`.

    The score interval without continuity correction: Wilson, Probable inference, the law of succession,
    and statistical inference, JASA 22 (1927) 209–212; recommended by Brown, Cai and DasGupta, Interval
    estimation for a binomial proportion, Statistical Science 16 (2001) 101–133.

    Parameters
    ----------
    successes, n : int or float
        With ``0 <= successes <= n``; ``n = 0`` gives (0.0, 1.0). They need not be whole: `n` can be the
        number of independent rows that say as much as weighted or grouped ones.
    confidence : float in (0, 1), default 0.95

    Raises
    ------
    ValueError
        The counts or the confidence are impossible.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes = {successes}, n = {n}: there must be 0 <= successes <= n")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence = {confidence!r} must lie between 0 and 1")
    if n == 0:
        return 0.0, 1.0
    share, z = successes / n, float(ndtri((1 + confidence) / 2))
    centre = share + z**2 / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = (centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)
    # at the ends the formula gives the share itself, but for rounding
    return min(max(low, 0.0), share), max(min(high, 1.0), share)
