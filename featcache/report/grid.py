"""Photos with their predictions, as a picture."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from featcache.errors import DataError, ImageError
from featcache.images.decode import thumbnail
from featcache.images.source import digest_photo, read_photo
from featcache.prediction import NONE_OF_THESE
from featcache.report.plots import DPI, check_name, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from featcache.model import Prediction
    from featcache.model_photos import ModelPhotos

RIGHT, WRONG, UNKNOWN = "#00783C", "#C4161C", "#000000"
_TILE = 1.9  # inches
_TITLE = 0.25
_THUMBNAIL = 300  # pixels: a tile's inches times the dots in each
_TITLE_CHARACTERS = 25
_MARK: dict[str, Any] = {
    "fontsize": 7,
    "color": "white",
    "ha": "left",
    "va": "bottom",
    "bbox": {"facecolor": UNKNOWN, "edgecolor": "none", "alpha": 0.75, "pad": 1.5},
}


def prediction_grid(
    predictions: Iterable[Prediction],
    labels: Sequence[str | None] | None = None,
    *,
    photos: Sequence[NDArray[np.uint8]] | NDArray[np.uint8] | None = None,
    most: int = 25,
    wrong_first: bool = False,
    trained_on: Sequence[bool] | None = None,
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
    trained_on : sequence of bool, optional
        Whether the model was trained on each photo. These photos are marked and counted.

    Returns
    -------
    matplotlib.figure.Figure
        One plot per photo. Its title is the predicted class and its probability, and where that is wrong the
        true class; above all, how many are right.

    Raises
    ------
    DataError
        There is nothing to draw, a photo is not there any more, or there are not as many labels, photos or
        values of `trained_on` as predictions.
    """
    from matplotlib.figure import Figure

    tiles = _tiles(list(predictions), labels, photos, trained_on)
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
    if tile.trained_on:
        axes.text(0.03, 0.03, "trained on", transform=axes.transAxes, **_MARK)
    axes.set_axis_off()


class _Tile(NamedTuple):
    """A photo, its prediction and its true class."""

    said: Prediction
    truth: str | None
    pixels: NDArray[np.uint8] | None
    trained_on: bool | None

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
    predictions: Sequence[Prediction], labels: Sequence[str | None] | None, photos: Any, trained_on: Any
) -> list[_Tile]:
    count = len(predictions)
    more = {"labels": labels, "photos": photos, "values of trained_on": trained_on}
    columns = [[None] * count if given is None else given for given in more.values()]
    for name, given in zip(more, columns, strict=True):
        if len(given) != count:
            raise DataError(f"{count} predictions and {len(given)} {name}; give one for each prediction")
    tiles = [_Tile(*one) for one in zip(predictions, *columns, strict=True)]
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
    trained = sum(bool(tile.trained_on) for tile in tiles)
    seen = f"the model was trained on {trained:,} of them" if trained else ""
    return "; ".join(filter(None, (share, none, part))) + (f"\n{seen}" if seen else "")


def labels_from_folders(predictions: Iterable[Prediction], classes: Sequence[str]) -> list[str | None]:
    """Return the class that each photo's folder is named after; None where it is named after none."""
    folders = [Path(one.path).absolute().parent.name for one in predictions]
    return [folder if folder in classes else None for folder in folders]


def trained_on(predictions: Iterable[Prediction], photos: ModelPhotos | None) -> list[bool]:
    """Return for each photo whether the model was trained on it, by reading it for its digest."""
    paths = [one.path for one in predictions]
    if photos is None:
        return [False] * len(paths)

    def is_among(path: str) -> bool:
        try:
            return bool(photos.trained_on(np.frombuffer(digest_photo(path)[0], np.uint8))[0])
        except ImageError:
            return False  # the photo has no prediction, or cannot be drawn either

    with ThreadPoolExecutor() as pool:
        return list(pool.map(is_among, paths))


def write_grid(
    predictions: Sequence[Prediction],
    classes: Sequence[str],
    path: Path,
    wrong_first: bool = False,
    photos: ModelPhotos | None = None,
) -> Path:
    """Write a grid of photos; a photo in a folder that is named like a class is taken to be of that class.

    Parameters
    ----------
    predictions : sequence of Prediction
        Of files.
    classes : sequence of str
    path : Path
    wrong_first : bool, default False
        As of `prediction_grid`.
    photos : ModelPhotos, optional
        The model's photos: those that it was trained on are marked and counted.

    Raises
    ------
    DataError
        As `prediction_grid` and `check_name` have it.
    StoreError
        No room or no permission.
    """
    labels, seen = labels_from_folders(predictions, classes), trained_on(predictions, photos)
    figure = prediction_grid(predictions, labels, wrong_first=wrong_first, trained_on=seen)
    return write_figure(figure, check_name(path))
