"""Photos with their predictions, as a picture."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from featcache.errors import DataError, ImageError
from featcache.images.decode import thumbnail
from featcache.images.source import read_photo
from featcache.prediction import NONE_OF_THESE
from featcache.report.plots import DPI, check_name, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from featcache.model import Prediction

RIGHT, WRONG, UNKNOWN = "#00783C", "#C4161C", "#000000"
_TILE = 1.9  # inches
_TITLE = 0.25
_THUMBNAIL = 300  # pixels: a tile's inches times the dots in each
_TITLE_CHARACTERS = 25


def prediction_grid(
    predictions: Iterable[Prediction],
    labels: Sequence[str | None] | None = None,
    *,
    photos: Sequence[NDArray[np.uint8]] | NDArray[np.uint8] | None = None,
    most: int = 25,
    wrong_first: bool = False,
) -> Figure:
    """Draw photos with their predictions: green if correct, red if wrong.

    Parameters
    ----------
    predictions : iterable of Prediction
        Those of photos that could not be decoded are left out.
    labels : sequence of str or None, optional
        The true class of each photo, None where it is not known; that photo's title is black, and that of a
        photo that was rejected, which is neither right nor wrong.
    photos : array of shape (n, height, width, 3), uint8, optional
        Their pixels, for predictions that have no path; photos of files are read and decoded anew.
    most : int, default 25
        Largest number of photos drawn. Of more, an evenly spaced selection is drawn.
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
    figure = Figure(size, dpi=DPI, layout="constrained", facecolor="white")
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
    """A photo, its prediction and its true class."""

    said: Prediction
    truth: str | None
    pixels: NDArray[np.uint8] | None

    @property
    def is_wrong(self) -> bool:
        return self.truth is not None and not self.said.rejected and self.said.label != self.truth

    @property
    def colour(self) -> str:
        if self.truth is None or self.said.rejected:
            return UNKNOWN
        return WRONG if self.is_wrong else RIGHT

    @property
    def title(self) -> str:
        share = "" if self.said.probability is None else f" {self.said.probability:.0%}"
        true = f" (is {self.truth})" if self.is_wrong or (self.said.rejected and self.truth) else ""
        return _wrapped(f"{NONE_OF_THESE if self.said.rejected else self.said.label}{share}{true}")

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
    tiles = [tile for tile in tiles if tile.said.label is not None or tile.said.rejected]
    if not tiles:
        raise DataError(
            "none of the predictions is of a photo that could be decoded; there is nothing to draw"
        )
    return tiles


def _pixels_of(path: str) -> NDArray[np.uint8]:
    if not path:
        raise DataError("predictions of an array have no path; give the array as photos")
    try:
        return thumbnail(read_photo(path), _THUMBNAIL)
    except ImageError as error:
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
    rejected = sum(tile.said.rejected is True for tile in tiles)
    known = [tile for tile in tiles if tile.truth is not None and not tile.said.rejected]
    right = sum(not tile.is_wrong for tile in known)
    share = f"{right:,} of {len(known):,} photos right ({right / len(known):.1%})" if known else ""
    part = f"{len(shown):,} of {len(tiles):,} photos shown" if len(shown) < len(tiles) else ""
    none = f"{rejected:,} {NONE_OF_THESE}" if rejected else ""
    return "; ".join(filter(None, (share, none, part)))


def labels_from_folders(predictions: Iterable[Prediction], classes: Sequence[str]) -> list[str | None]:
    """Return the class that each photo's folder is named after; None where it is named after none."""
    folders = [Path(one.path).absolute().parent.name for one in predictions]
    return [folder if folder in classes else None for folder in folders]


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
