"""The learning curve of a run and the spread over seeds, for a terminal and as a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from featcache.files import write_bytes_whole
from featcache.report.plots import DPI, VALIDATION, tidy, write_figure
from featcache.report.tables import number, percent
from featcache.run.layout import LEARNING_CURVE_FILE, LEARNING_CURVE_PICTURE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from featcache.evaluating.seeds import SeedSpread
    from featcache.evaluation.learning_curve import LearningCurve
    from featcache.evaluation.power_law import Forecast


_FORECAST: dict[str, Any] = {"color": VALIDATION, "marker": "o", "fillstyle": "none", "capsize": 3}


def curve_parts(curve: LearningCurve) -> list[Any]:
    """Return the curve as a title, a table with a row for each number of training photos, and sentences."""
    scored = f"in {curve.draws} folds" if curve.in_folds else f"on validation, {curve.draws} draws"
    title = f"learning curve of the default head, scored {scored} (n = {curve.n:,})"
    table = Table(box=None, pad_edge=False)
    for name in ("training photos", "accuracy", "log loss"):
        table.add_column(name, justify="right")
    for place, photos in enumerate(curve.photos):
        loss = None if curve.log_loss is None else float(curve.log_loss[place])
        table.add_row(f"{photos:,.0f}", percent(float(curve.accuracy[place])), number(loss))
    return [title, table, *curve_sentences(curve)]


def curve_sentences(curve: LearningCurve) -> list[str]:
    """Say what twice as many photos would give, or that the curve cannot tell."""
    lines = [f"not trained at {one}" for one in curve.skipped]
    found = curve.error_forecast
    if found is None:
        return [*lines, "Too few photos for a forecast: the head must be trained at three sizes at least."]
    now, then = percent(float(curve.accuracy[-1])), percent(1 - found.value)
    forecasts = [_forecast("accuracy", found, now, then, 100 * found.spread, 1)]
    if curve.log_loss is not None and (found := curve.log_loss_forecast) is not None:
        now, then = number(float(curve.log_loss[-1])), number(found.value)
        forecasts.append(_forecast("log loss", found, now, then, found.spread, 3))
    photos = f"{found.photos / 2:,.0f} → {found.photos:,.0f}"
    return [*lines, f"Twice as many photos ({photos}): {'; '.join(forecasts)}"]


def _forecast(metric: str, found: Forecast, now: str, then: str, spread: float, digits: int) -> str:
    if not found.is_trend:
        return f"{metric} {now} → cannot tell, it did not improve with the photos beyond chance"
    return f"{metric} {now} → about {then} (±{spread:.{digits}f})"


def write_curve(curve: LearningCurve, run: Path) -> list[Path]:
    """Write the curve as JSON and as a picture into the run, and return the files.

    Raises
    ------
    StoreError
        No room or no permission.
    """
    facts, picture = run / LEARNING_CURVE_FILE, run / LEARNING_CURVE_PICTURE
    write_bytes_whole(facts, (json.dumps(curve.to_json(), indent=1) + "\n").encode())
    return [facts, write_figure(curve_figure(curve), picture)]


def curve_figure(curve: LearningCurve) -> Figure:
    """Draw accuracy, and log loss where there is one, over the number of training photos.

    Returns
    -------
    matplotlib.figure.Figure
        A dotted line leads to the forecast for twice as many photos and its spread, where there is a trend.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    metrics = [("accuracy", curve.accuracy, curve.error_forecast)]
    if curve.log_loss is not None:
        metrics.append(("log loss", curve.log_loss, curve.log_loss_forecast))
    figure = Figure((6.0, 2.9 * len(metrics) + 0.3), dpi=DPI, layout="constrained", facecolor="white")
    plots = figure.subplots(len(metrics), sharex=True, squeeze=False).flatten()
    for axes, (name, values, found) in zip(plots, metrics, strict=True):
        _draw(axes, curve.photos, values, found, upward=name == "accuracy")
        axes.set_ylabel(name, fontsize=10)
        tidy(axes)
    plots[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    plots[-1].set_xlabel("training photos", fontsize=10)
    figure.suptitle(f"learning curve of the default head, {curve.n:,} photos scored", fontsize=11)
    return figure


def _draw(axes: Axes, photos: Any, values: Any, found: Forecast | None, *, upward: bool) -> None:
    axes.plot(photos, values, color=VALIDATION, marker="o", linewidth=1.8)
    ticks = list(photos)
    if found is not None and found.is_trend:
        value = 1 - found.value if upward else found.value
        axes.plot([photos[-1], found.photos], [values[-1], value], color=VALIDATION, linestyle=":")
        axes.errorbar([found.photos], [value], yerr=found.spread, **_FORECAST)
        ticks.append(found.photos)
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{np.round(one):,.0f}" for one in ticks])
    axes.minorticks_off()


def seeds_parts(spreads: Sequence[SeedSpread]) -> list[Any]:
    """Return a title, and a table with mean and standard deviation over the seeds for each Dense head."""
    table = Table(box=None, pad_edge=False)
    table.add_column("head")
    for name in ("accuracy", "log loss"):
        table.add_column(name, justify="right")
    for one in spreads:
        share, loss = one.mean("accuracy"), one.mean("log_loss")
        table.add_row(
            one.name,
            f"{percent(share)} ± {percent(one.standard_deviation('accuracy'))}",
            f"{number(loss)} ± {number(one.standard_deviation('log_loss'))}",
        )
    first = spreads[0]
    return [f"over {len(first.seeds)} seeds: mean ± standard deviation (n = {first.n:,})", table]
