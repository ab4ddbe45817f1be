"""The confidence interval of a proportion."""

from __future__ import annotations

from scipy.stats import binomtest


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the confidence interval of a proportion, for `successes` out of `n`.

    The score interval without continuity correction: Wilson, Probable inference, the law of succession,
    and statistical inference, JASA 22 (1927) 209–212; recommended by Brown, Cai and DasGupta, Interval
    estimation for a binomial proportion, Statistical Science 16 (2001) 101–133.

    Parameters
    ----------
    successes, n : int
        With ``0 <= successes <= n``; ``n = 0`` gives (0.0, 1.0).
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
    low, high = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    # at the ends the formula gives the share itself, but for rounding
    share = successes / n
    return float(min(max(low, 0.0), share)), float(max(min(high, 1.0), share))
