"""Learning curves as figures, and writing figures to files.

Matplotlib is imported when a figure is drawn, without pyplot: no backend is chosen and no figure stays open.
Properties are set on the figure, not in Matplotlib's global settings.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featcache.errors import DataError
from featcache.files import write_bytes_whole
from featcache.run.layout import curves_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from featcache.finetuning.checkpoints import History
    from featcache.finetuning.stage import Finetuning
    from featcache.training import Training

START = "start of fine-tuning"
DPI = 150

# Okabe and Ito, Color Universal Design (2008): distinguishable with every kind of colour vision.
TRAINING, VALIDATION = "#0072B2", "#D55E00"

_TRAINING_LINE: dict[str, Any] = {"color": TRAINING, "linestyle": "--", "linewidth": 1.3, "marker": "."}
_VALIDATION_LINE: dict[str, Any] = {"color": VALIDATION, "linestyle": "-", "linewidth": 1.8, "marker": "."}
_CIRCLE: dict[str, Any] = {
    "color": "black",
    "linestyle": "none",
    "marker": "o",
    "markersize": 10,
    "fillstyle": "none",
    "clip_on": False,  # complete at the edge of the axes
}
_GREY = "#555555"


def learning_curves(head: Any, finetuning: History | None = None, *, title: str = "") -> Figure:
    """Plot accuracy and loss over the epochs of a head and of the fine-tuning that started from it.

    Parameters
    ----------
    head : DenseHead or KerasHead
        A fitted head. Epoch 0 is before training; heads without validation data do not have it.
    finetuning : History, optional
        Its epochs follow those of the head; a vertical line marks the start. Its first point on validation is
        the kept head, which can be of an earlier epoch than the last.
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure
        One subplot per metric, accuracy above loss, with a common axis of epochs. The epoch whose weights
        were kept is marked.

    Raises
    ------
    DataError
        The head has no history, like those of scikit-learn.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    measures = _measures_of(head)
    figure = Figure((6.4, 3.1 * len(measures) + 0.3), dpi=DPI, layout="constrained", facecolor="white")
    plots = figure.subplots(len(measures), sharex=True, squeeze=False).flatten()
    for axes, measure in zip(plots, measures, strict=True):
        _draw_measure(axes, measure, head, finetuning)
        tidy(axes)
    if finetuning is not None:
        _say_where_finetuning_starts(plots[0], head.n_iter_, finetuning.epochs)
    epochs = [epoch for line in plots[0].lines for epoch in line.get_xdata()]
    plots[-1].set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    plots[-1].set_xlabel("epoch (0: before training)" if 0 in epochs else "epoch", fontsize=10)
    plots[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.align_ylabels()
    lines = [line for line in plots[0].lines if not str(line.get_label()).startswith("_")]
    # outside of the subplots, where it covers no line
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), fontsize=9, frameon=False)
    if title:
        figure.suptitle(title, fontsize=11, parse_math=False)
    return figure


def _measures_of(head: Any) -> list[str]:
    """Return the metrics to plot; a Keras head may have others than accuracy."""
    if not hasattr(head, "history_"):
        raise DataError(
            f"a {type(head).__name__} has no history of epochs; learning curves are plotted for fitted Dense "
            "and Keras heads"
        )
    return [name for name in ("accuracy", "loss") if name in head.history_]


def _draw_measure(axes: Axes, measure: str, head: Any, finetuning: History | None) -> None:
    training = _training_line(measure, head, finetuning)
    validation = _validation_line(measure, head, finetuning)
    axes.plot(*training, **_TRAINING_LINE, label="training")
    if validation[0]:
        axes.plot(*validation, **_VALIDATION_LINE, label="validation")
    _mark_kept(axes, validation if validation[0] else training, head, finetuning)
    if finetuning is not None:
        axes.axvline(head.n_iter_, color=_GREY, linestyle=":", linewidth=1.2, label="_" + START, zorder=1)
    _scale(axes, measure, [*training[1], *validation[1]])


_Line = tuple[list[int], list[float]]
"""Epochs, and the metric after each."""


def _training_line(measure: str, head: Any, finetuning: History | None) -> _Line:
    values = [*head.history_[measure], *(finetuning.per_epoch[measure] if finetuning else [])]
    return list(range(1, len(values) + 1)), values


def _validation_line(measure: str, head: Any, finetuning: History | None) -> _Line:
    """Return the validation line.

    It has two points where fine-tuning starts: the last epoch of the head, and the kept head.
    """
    before = getattr(head, "before_", None)
    values = list(head.history_.get(f"val_{measure}", []))
    epochs = list(range(1, len(values) + 1))
    if before is not None:
        epochs, values = [0, *epochs], [before[measure], *values]
    if finetuning is not None:
        epochs += range(head.n_iter_, head.n_iter_ + finetuning.epochs + 1)
        values += [finetuning.before[measure], *finetuning.per_epoch[f"val_{measure}"]]
    return epochs, values


def _mark_kept(axes: Axes, line: _Line, head: Any, finetuning: History | None) -> None:
    kept = _kept_epoch(head, finetuning)
    if kept is None:
        return
    value = dict(zip(*line, strict=True))[kept]
    of_finetuning = f" ({finetuning.best_epoch} of fine-tuning)" if finetuning is not None else ""
    label = f"kept: epoch {kept}{of_finetuning}"
    axes.plot([kept], [value], **_CIRCLE, label=label)


def _kept_epoch(head: Any, finetuning: History | None) -> int | None:
    """Return the epoch whose weights were kept; None for a Keras head, where callbacks decide."""
    if finetuning is not None:
        return int(head.n_iter_) + finetuning.best_epoch
    if not hasattr(head, "best_epoch_"):
        return None
    stopped = head.early_stopping and "val_loss" in head.history_
    return int(head.best_epoch_ if stopped else head.n_iter_)


def _scale(axes: Axes, measure: str, values: Sequence[float]) -> None:
    """Scale accuracy from the tenth below its minimum to 100%; loss from 0, or logarithmically.

    Logarithmically where one loss is much larger than the others, like that of initial weights on large
    features.
    """
    from matplotlib.ticker import PercentFormatter

    if measure == "accuracy":
        lowest = max(0.0, np.floor(10 * min(values) - 0.2) / 10)
        axes.set_ylim(lowest, 1 + 0.02 * (1 - lowest))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    elif max(values) > 30 * np.median(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        axes.set_ylim(0, 1.05 * max(values) or 1)
    axes.set_ylabel(measure, fontsize=10)


def _say_where_finetuning_starts(axes: Axes, epoch: int, epochs_after: int) -> None:
    """Write it above the line, on the side with more space."""
    side = "left" if epochs_after > epoch else "right"
    place = axes.get_xaxis_transform()
    axes.text(epoch, 1.02, START, transform=place, ha=side, va="bottom", fontsize=9, color=_GREY)


def tidy(axes: Axes) -> None:
    """Give a plot a light grid and no frame."""
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def write_curves_of_heads(training: Training) -> list[Path]:
    """Draw the learning curves of the heads that were trained in epochs and return the files.

    Raises
    ------
    StoreError
        No room or no permission.
    """
    written = []
    for name, model in training.models.items():
        if hasattr(model.head, "history_"):
            figure = learning_curves(model.head, title=name)
            written.append(write_figure(figure, curves_file(training.extraction.run, name)))
    return written


def write_curves_of_finetuning(result: Finetuning) -> Path:
    """Draw the learning curves of a fine-tuning and of the head that it started from, and return the file.

    Raises
    ------
    StoreError
        No room or no permission.
    """
    title = f"{result.head}, {'reinitialized, in' if result.fresh_head else 'then'} fine-tuning"
    figure = learning_curves(result.started_from, result.history, title=title)
    return write_figure(figure, curves_file(result.extraction.run.parent, result.result.name))


def check_name(path: Path) -> Path:
    """Return the path of a picture if it ends in ``.png``.

    Raises
    ------
    DataError
        It has another ending.
    """
    if path.suffix.lower() != ".png":
        raise DataError(f"{path} does not end in .png; pictures are PNG files, so call it {path.stem}.png")
    return path


def write_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as a PNG file and return its path.

    Raises
    ------
    StoreError
        No room or no permission.
    """
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=DPI, facecolor="white")
    write_bytes_whole(path, data.getvalue())
    return path
