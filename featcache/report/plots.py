"""Pictures: learning curves, and photos with what a model says of them.

Matplotlib is imported when a picture is drawn, by its figures alone: no pyplot, no backend to be chosen, and
nothing is left open. What a picture needs is set on the picture, not in Matplotlib's settings.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from featcache.errors import DataError, ImageError
from featcache.files import write_bytes_whole
from featcache.images.decode import thumbnail

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from featcache.finetuning import Finetuning
    from featcache.heads.tuning import Tuning
    from featcache.model import Prediction
    from featcache.recipe import Recipe
    from featcache.train import Training

CURVES_FILE = "curves.png"
START = "start of fine-tuning"

# Of Okabe and Ito, Color Universal Design (2008): told apart with every kind of colour vision.
TRAINING, VALIDATION = "#0072B2", "#D55E00"
RIGHT, WRONG, UNKNOWN = "#00783C", "#C4161C", "#000000"

_TRAINING_LINE: dict[str, Any] = {"color": TRAINING, "linestyle": "--", "linewidth": 1.3, "marker": "."}
_VALIDATION_LINE: dict[str, Any] = {"color": VALIDATION, "linestyle": "-", "linewidth": 1.8, "marker": "."}
_CIRCLE: dict[str, Any] = {
    "color": "black",
    "linestyle": "none",
    "marker": "o",
    "markersize": 10,
    "fillstyle": "none",
    "clip_on": False,  # whole at the edge, too
}
_DPI = 150
_GREY = "#555555"
_TILE = 1.9  # inches
_TITLE = 0.25
_THUMBNAIL = 300  # pixels: a tile's inches times the dots in each
_TITLE_CHARACTERS = 25


# ---- learning curves -------------------------------------------------------------------------------------


def learning_curves(head: Any, tuning: Tuning | None = None, *, title: str = "") -> Figure:
    """Draw accuracy and loss over the epochs, of a head and of the fine-tuning that started from it.

    Parameters
    ----------
    head : DenseHead or KerasHead
        Fitted. Epoch 0 is before training, where the head knows it and had validation data.
    tuning : Tuning, optional
        Its epochs are counted on from the head's; a line says where it starts. Its first point
        on validation is the head as it was kept, perhaps of an earlier epoch than the last.
    title : str, optional

    Returns
    -------
    matplotlib.figure.Figure
        One plot per measure, accuracy above loss, on a common axis of epochs. The epoch whose weights were
        kept is marked.

    Raises
    ------
    DataError
        The head has no history: scikit-learn's have none.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    measures = _measures_of(head)
    figure = Figure((6.4, 3.1 * len(measures) + 0.3), dpi=_DPI, layout="constrained", facecolor="white")
    plots = figure.subplots(len(measures), sharex=True, squeeze=False).flatten()
    for axes, measure in zip(plots, measures, strict=True):
        _draw_measure(axes, measure, head, tuning)
        _tidy(axes)
    if tuning is not None:
        _say_where_tuning_starts(plots[0], head.n_iter_, tuning.epochs)
    epochs = [epoch for line in plots[0].lines for epoch in line.get_xdata()]
    plots[-1].set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    plots[-1].set_xlabel("epoch" + _before(head), fontsize=10)
    plots[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.align_ylabels()
    lines = [line for line in plots[0].lines if not str(line.get_label()).startswith("_")]
    # outside of the plots, where it covers no line
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), fontsize=9, frameon=False)
    if title:
        figure.suptitle(title, fontsize=11, parse_math=False)
    return figure


def _measures_of(head: Any) -> list[str]:
    """Return what can be drawn; a Keras head may measure other things than accuracy."""
    if not hasattr(head, "history_"):
        raise DataError(
            f"a {type(head).__name__} keeps no history of epochs; learning curves are drawn of Dense and "
            "Keras heads that are fitted"
        )
    return [name for name in ("accuracy", "loss") if name in head.history_]


def _before(head: Any) -> str:
    return " (0: before training)" if getattr(head, "before_", None) else ""


def _draw_measure(axes: Axes, measure: str, head: Any, tuning: Tuning | None) -> None:
    training = _training_line(measure, head, tuning)
    validation = _validation_line(measure, head, tuning)
    axes.plot(*training, **_TRAINING_LINE, label="training")
    if validation[0]:
        axes.plot(*validation, **_VALIDATION_LINE, label="validation")
    _mark_kept(axes, validation if validation[0] else training, head, tuning)
    if tuning is not None:
        axes.axvline(head.n_iter_, color=_GREY, linestyle=":", linewidth=1.2, label="_" + START, zorder=1)
    _scale(axes, measure, [*training[1], *validation[1]])


_Line = tuple[list[int], list[float]]
"""Epochs, and the measure after each."""


def _training_line(measure: str, head: Any, tuning: Tuning | None) -> _Line:
    values = [*head.history_[measure], *(tuning.history[measure] if tuning else [])]
    return list(range(1, len(values) + 1)), values


def _validation_line(measure: str, head: Any, tuning: Tuning | None) -> _Line:
    """Return the line of validation.

    Where tuning starts there are two points: the head's last epoch, and the head as it was kept.
    """
    before = getattr(head, "before_", None)
    values = list(head.history_.get(f"val_{measure}", []))
    epochs = list(range(1, len(values) + 1))
    if before is not None:
        epochs, values = [0, *epochs], [before[measure], *values]
    if tuning is not None:
        epochs += range(head.n_iter_, head.n_iter_ + tuning.epochs + 1)
        values += [tuning.before[measure], *tuning.history[f"val_{measure}"]]
    return epochs, values


def _mark_kept(axes: Axes, line: _Line, head: Any, tuning: Tuning | None) -> None:
    kept = _kept_epoch(head, tuning)
    if kept is None:
        return
    value = dict(zip(*line, strict=True))[kept]
    of_tuning = f" ({tuning.best_epoch} of fine-tuning)" if tuning is not None else ""
    label = f"kept: epoch {kept}{of_tuning}"
    axes.plot([kept], [value], **_CIRCLE, label=label)


def _kept_epoch(head: Any, tuning: Tuning | None) -> int | None:
    """Return the epoch whose weights the result has; of a Keras head only its callbacks know."""
    if tuning is not None:
        return int(head.n_iter_) + tuning.best_epoch
    if not hasattr(head, "best_epoch_"):
        return None
    return int(head.best_epoch_ if head.early_stopping else head.n_iter_)


def _scale(axes: Axes, measure: str, values: Sequence[float]) -> None:
    """Show accuracy from the tenth below its least value to 100%; loss from 0, or by powers of 10.

    By powers where one loss dwarfs the others, as that of first weights on large features does.
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


def _say_where_tuning_starts(axes: Axes, epoch: int, epochs_after: int) -> None:
    """Write it above the line, turned to the side with more room."""
    side = "left" if epochs_after > epoch else "right"
    place = axes.get_xaxis_transform()
    axes.text(epoch, 1.02, START, transform=place, ha=side, va="bottom", fontsize=9, color=_GREY)


def _tidy(axes: Axes) -> None:
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def write_curves_of_heads(training: Training, recipe: Recipe) -> list[Path]:
    """Write the learning curves of each Dense head beside its model and return the files.

    Raises
    ------
    StoreError
        No room or no permission.
    """
    from featcache.model import Model

    dense = {str(settings.name) for settings in recipe.heads if settings.type == "dense"}
    written = []
    for result in training.heads:
        if result.name in dense:
            figure = learning_curves(Model.load(result.model).head, title=result.name)
            written.append(write_figure(figure, result.model / CURVES_FILE))
    return written


def write_curves_of_tuning(result: Finetuning) -> Path:
    """Write the learning curves of a fine-tuning and of its head and return the file.

    Raises
    ------
    StoreError
        No room or no permission.
    """
    figure = learning_curves(result.started_from, result.tuning, title=f"{result.head}, then fine-tuning")
    return write_figure(figure, result.extraction.run / CURVES_FILE)


# ---- photos ----------------------------------------------------------------------------------------------


def prediction_grid(
    predictions: Iterable[Prediction],
    labels: Sequence[str | None] | None = None,
    *,
    photos: Sequence[NDArray[np.uint8]] | NDArray[np.uint8] | None = None,
    most: int = 25,
    wrong_first: bool = False,
) -> Figure:
    """Draw photos with what a model says of them: green where it is right, red where it is wrong.

    Parameters
    ----------
    predictions : iterable of Prediction
        Those of photos that could not be decoded are left out.
    labels : sequence of str or None, optional
        The true class of each photo, None where it is not known; that photo's title is black.
    photos : array of shape (n, height, width, 3), uint8, optional
        Their pixels, for predictions that have no path; photos of files are read and decoded anew.
    most : int, default 25
        So many photos are drawn. Of more, some are taken at equal steps, so that every folder gets its share.
    wrong_first : bool, default False
        Draw the wrong ones first, the most certain of them in front.

    Returns
    -------
    matplotlib.figure.Figure
        One plot per photo. Its title is the predicted class and its probability, and where that is wrong the
        true class; above all, how many are right.

    Raises
    ------
    DataError
        There is nothing to draw, a photo is not there any more, or there are not as many labels or photos as
        predictions.
    """
    from matplotlib.figure import Figure

    tiles = _tiles(list(predictions), labels, photos)
    shown = _chosen(tiles, most, wrong_first)
    columns = int(np.ceil(np.sqrt(len(shown))))
    pictures = [tile.picture() for tile in shown]
    heights = _heights(pictures, columns)
    size = (max(columns * _TILE, 3.0), sum(heights) + _TITLE * len(heights) + 0.3)
    figure = Figure(size, dpi=_DPI, layout="constrained", facecolor="white")
    places = figure.subplots(len(heights), columns, squeeze=False, height_ratios=heights).flatten()
    for axes, tile, picture in zip(places, shown, pictures, strict=False):
        _draw_tile(axes, tile, picture)
    for axes in places[len(shown) :]:
        axes.remove()
    if title := _how_many(tiles, shown):
        figure.suptitle(title, fontsize=11)
    return figure


def _heights(pictures: Sequence[NDArray[np.uint8]], columns: int) -> list[float]:
    """Return the inches of each row: as its highest photo needs, at most a square."""
    aspects = [min(picture.shape[0] / picture.shape[1], 1.0) for picture in pictures]
    return [_TILE * max(aspects[first : first + columns]) for first in range(0, len(aspects), columns)]


def _draw_tile(axes: Axes, tile: _Tile, picture: NDArray[np.uint8]) -> None:
    axes.imshow(picture)
    axes.set_anchor("N")  # titles of a row stand side by side whatever the photos' aspects
    axes.set_title(tile.title, color=tile.colour, fontsize=9, pad=3, parse_math=False)
    axes.set_axis_off()


class _Tile(NamedTuple):
    """A photo, what is said of it, and what it is."""

    said: Prediction
    truth: str | None
    pixels: NDArray[np.uint8] | None

    @property
    def is_wrong(self) -> bool:
        return self.truth is not None and self.said.label != self.truth

    @property
    def colour(self) -> str:
        if self.truth is None:
            return UNKNOWN
        return WRONG if self.is_wrong else RIGHT

    @property
    def title(self) -> str:
        share = "" if self.said.probability is None else f" {self.said.probability:.0%}"
        true = f" (is {self.truth})" if self.is_wrong else ""
        return _wrapped(f"{self.said.label}{share}{true}")

    def picture(self) -> NDArray[np.uint8]:
        return _pixels_of(self.said.path) if self.pixels is None else self.pixels


def _wrapped(text: str) -> str:
    """Break a title into lines that its photo is wide enough for, also behind the underscores of names."""
    return textwrap.fill(text.replace("_", "_ "), _TITLE_CHARACTERS).replace("_ ", "_")


def _tiles(
    predictions: Sequence[Prediction], labels: Sequence[str | None] | None, photos: Any
) -> list[_Tile]:
    count = len(predictions)
    labels = [None] * count if labels is None else labels
    photos = [None] * count if photos is None else photos
    for name, given in (("labels", labels), ("photos", photos)):
        if len(given) != count:
            raise DataError(f"{count} predictions and {len(given)} {name}; give one for each prediction")
    tiles = [_Tile(*one) for one in zip(predictions, labels, photos, strict=True)]
    tiles = [tile for tile in tiles if tile.said.label is not None]
    if not tiles:
        raise DataError(
            "none of the predictions is of a photo that could be decoded; there is nothing to draw"
        )
    return tiles


def _pixels_of(path: str) -> NDArray[np.uint8]:
    if not path:
        raise DataError("predictions of an array have no path; give the array as photos")
    try:
        return thumbnail(Path(path).read_bytes(), _THUMBNAIL)
    except (OSError, ImageError) as error:
        raise DataError(f"{path} cannot be drawn: {error}") from None


def _chosen(tiles: Sequence[_Tile], most: int, wrong_first: bool) -> list[_Tile]:
    if not wrong_first:
        return _at_equal_steps(tiles, most)
    wrong = sorted((tile for tile in tiles if tile.is_wrong), key=lambda tile: -(tile.said.probability or 0))
    others = [tile for tile in tiles if not tile.is_wrong]
    return [*wrong[:most], *_at_equal_steps(others, most - len(wrong))]


def _at_equal_steps(tiles: Sequence[_Tile], most: int) -> list[_Tile]:
    count = min(len(tiles), max(most, 0))
    return [tiles[len(tiles) * place // count] for place in range(count)]


def _how_many(tiles: Sequence[_Tile], shown: Sequence[_Tile]) -> str:
    known = [tile for tile in tiles if tile.truth is not None]
    right = sum(not tile.is_wrong for tile in known)
    share = f"{right:,} of {len(known):,} photos right ({right / len(known):.1%})" if known else ""
    part = f"{len(shown):,} of {len(tiles):,} photos shown" if len(shown) < len(tiles) else ""
    return "; ".join(filter(None, (share, part)))


def labels_from_folders(predictions: Iterable[Prediction], classes: Sequence[str]) -> list[str | None]:
    """Return the class that each photo's folder is named after; None where it is named after none."""
    folders = [Path(one.path).absolute().parent.name for one in predictions]
    return [folder if folder in classes else None for folder in folders]


# ---- files -----------------------------------------------------------------------------------------------


def write_grid(
    predictions: Sequence[Prediction], classes: Sequence[str], path: Path, wrong_first: bool = False
) -> Path:
    """Write a grid of photos; a photo in a folder that is named like a class is taken to be of that class.

    Raises
    ------
    DataError
        As `prediction_grid` and `check_name` have it.
    StoreError
        No room or no permission.
    """
    labels = labels_from_folders(predictions, classes)
    return write_figure(prediction_grid(predictions, labels, wrong_first=wrong_first), check_name(path))


def check_name(path: Path) -> Path:
    """Return the path that a picture is asked for at, if its name ends in ``.png``.

    Raises
    ------
    DataError
        It ends in something else.
    """
    if path.suffix.lower() != ".png":
        raise DataError(
            f"{path} is no name for a picture; pictures are PNG files, so call it {path.stem}.png"
        )
    return path


def write_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as a whole PNG file and return its path.

    Raises
    ------
    StoreError
        No room or no permission.
    """
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=_DPI, facecolor="white")
    write_bytes_whole(path, data.getvalue())
    return path
