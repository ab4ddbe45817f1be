"""A reliability diagram: how far probabilities can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from featcache.report.plots import DPI, TRAINING, VALIDATION, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GREY = "#555555"
_POINTS: dict[str, Any] = {
    "color": VALIDATION,
    "marker": "o",
    "capsize": 3,
    "linestyle": "none",
    "label": "accuracy, 95% interval",
}


def reliability_diagram(bins: Sequence[Mapping[str, Any]], *, title: str = "") -> Figure:
    """Draw the accuracy of each bin of confidence with its 95% interval, above the number of its photos.

    Parameters
    ----------
    bins : sequence of mappings
        As `featcache.evaluation.reliability.reliability` gives them.
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure
        Points on the diagonal are calibrated; below it the head is too sure of itself.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure((5.4, 6.0), dpi=DPI, layout="constrained", facecolor="white")
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    _draw_accuracy(upper, bins)
    _draw_counts(lower, bins)
    lower.set_xlabel("probability of the predicted class", fontsize=10)
    lower.set_xlim(max(0.0, bins[0]["low"] - 0.05), 1.02)
    lower.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    for axes in (upper, lower):
        tidy(axes)
    if title:
        figure.suptitle(title, fontsize=10, parse_math=False, wrap=True)
    return figure


def _draw_accuracy(axes: Axes, bins: Sequence[Mapping[str, Any]]) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.plot([0, 1], [0, 1], color=_GREY, linestyle=":", linewidth=1.2, label="calibrated")
    axes.errorbar(
        [one["confidence"] for one in bins],
        [one["accuracy"] for one in bins],
        yerr=[
            [one["accuracy"] - one["accuracy_low"] for one in bins],
            [one["accuracy_high"] - one["accuracy"] for one in bins],
        ],
        **_POINTS,
    )
    axes.set_ylabel("accuracy", fontsize=10)
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.legend(loc="upper left", fontsize=9, frameon=False)


def _draw_counts(axes: Axes, bins: Sequence[Mapping[str, Any]]) -> None:
    from matplotlib.ticker import MaxNLocator

    starts, counts = [one["low"] for one in bins], [one["n"] for one in bins]
    axes.bar(starts, counts, bins[0]["high"] - bins[0]["low"], align="edge", color=TRAINING)
    axes.set_ylabel("photos", fontsize=10)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=3))
