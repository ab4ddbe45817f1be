"""How labelled features reach the training loop: from memory in one piece, or from disk in many."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from featcache.heads.vectors import pool

NO_FOLD = -1

# Bytes of features that are read in one go. The rows in between come in their order on disk: many such blocks
# make a buffer, and the buffer is shuffled.
_BLOCK_BYTES = 1 << 20


class Rows(NamedTuple):
    """Labelled features: (n, d) float32 or float16, and (n,) each of what belongs to them.

    The positions of the classes and the folds are int32, the sample weights float32.
    """

    features: NDArray[Any]
    labels: NDArray[np.int32]
    folds: NDArray[np.int32]
    weights: NDArray[Any]

    @classmethod
    def of(
        cls,
        features: NDArray[Any],
        labels: NDArray[Any],
        folds: NDArray[Any] | None = None,
        weights: NDArray[Any] | None = None,
    ) -> Rows:
        """Return rows; without `folds` none of them belongs to one, without `weights` all weigh 1."""
        folds = np.full(len(labels), NO_FOLD) if folds is None else folds
        weights = np.ones(len(labels)) if weights is None else weights
        return cls(features, labels.astype(np.int32), folds.astype(np.int32), weights.astype(np.float32))


class Feed(Protocol):
    """Gives labelled features to the training loop.

    Attributes
    ----------
    views : int
        In how many views each photo is there. 1: a photo is a row.
    width : int
        Numbers per row.
    dtype : numpy dtype
        float32 or float16.
    """

    views: int
    width: int
    dtype: np.dtype[Any]

    def shuffled(self, rng: np.random.Generator, batch_size: int) -> Iterator[tuple[Rows, NDArray[np.int32]]]:
        """Give every photo once, in a view that is drawn, in pieces, each with the order of its rows.

        All pieces but the last hold whole batches.
        """

    def in_order(self) -> Iterator[Rows]:
        """Give every photo once, in its first view, the plain one, in pieces."""


def draw_views(rng: np.random.Generator, photos: int, views: int) -> NDArray[np.int64]:
    """Draw a view for each photo, (n,); where there is only one, nothing is taken from the generator."""
    return np.zeros(photos, np.int64) if views == 1 else rng.integers(views, size=photos)


class InMemory:
    """All rows as one piece.

    Parameters
    ----------
    rows : Rows
        The views of a photo stand one after another.
    views : int
        Of each photo.
    """

    def __init__(self, rows: Rows, views: int = 1) -> None:
        self._rows, self.views = rows, views
        self._photos, self.width = len(rows.labels) // views, rows.features.shape[1]
        self.dtype = rows.features.dtype

    def shuffled(self, rng: np.random.Generator, batch_size: int) -> Iterator[tuple[Rows, NDArray[np.int32]]]:
        """Give the rows and a new order of all photos, each in a view of its own."""
        views = draw_views(rng, self._photos, self.views)
        order = rng.permutation(self._photos)
        yield self._rows, (order * self.views + views[order]).astype(np.int32)

    def in_order(self) -> Iterator[Rows]:
        """Give the plain photos' rows."""
        yield self._plain

    @cached_property
    def _plain(self) -> Rows:
        # the same object in every epoch, which is then copied to TensorFlow only once
        return self._rows if self.views == 1 else Rows(*(column[:: self.views] for column in self._rows))


class FeatureSource(Protocol):
    """Labelled features on disk, such as a split of a feature file.

    One whose photos have several views also has their number, ``views``, and ``read_views(start, stop)``,
    which gives features of shape (n, views, ...).
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, h, w, c) or (n, c)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float16."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """(n,)."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Read the features of rows `start` to `stop`, excluded."""


def is_feature_source(X: Any) -> bool:
    """Say whether `X` is a `FeatureSource` and no array."""
    return hasattr(X, "read") and hasattr(X, "labels")


def view_count(X: Any) -> int:
    """Return in how many views the photos of a `FeatureSource` are there."""
    return int(getattr(X, "views", 1))


def weights_of(X: Any) -> NDArray[np.float64] | None:
    """Return the sample weights that a `FeatureSource` brings; None for arrays and where all are 1."""
    return X.weights if getattr(X, "has_weights", False) else None


def read_checked(
    source: FeatureSource, start: int, stop: int, views: NDArray[np.int64] | None = None
) -> NDArray[Any]:
    """Read features, of photos in the given views, and refuse those that are no numbers.

    Raises
    ------
    ValueError
        They hold NaN or infinity.
    """
    if views is None or view_count(source) == 1:
        features = source.read(start, stop)
    else:
        features = source.read_views(start, stop)[np.arange(stop - start), views]  # type: ignore[attr-defined]
    if not np.isfinite(features).all():
        raise ValueError(f"X contains NaN or infinity in the rows {start} to {stop - 1}")
    return features


class Streamed:
    """Features that are larger than memory: a thread reads ahead what the next piece needs.

    Every epoch shuffles the list of blocks, reads them in that order into a buffer and shuffles the
    buffer; so rows meet other rows in every epoch, although the disk is read in stretches. Of photos in
    several views all are read, since they lie side by side, and one goes into the buffer.

    Parameters
    ----------
    source : FeatureSource
    labels : array of shape (n,)
        Positions of the class.
    pooling : {"flatten", "avg", "max"}
    max_memory : int
        Bytes that features may take at once: the piece in training, TensorFlow's copy of it, the
        next one, and blocks on their way.
    weights : array of shape (n,), optional
        Sample weights.
    """

    def __init__(
        self,
        source: FeatureSource,
        labels: NDArray[Any],
        pooling: str,
        max_memory: int,
        weights: NDArray[Any] | None = None,
    ) -> None:
        self._source, self._pooling = source, pooling
        self._labels = labels.astype(np.int32)
        self._weights = np.ones(len(labels), np.float32) if weights is None else weights
        sample = self._read(0, 1)
        self._photos, self.views = len(source), view_count(source)
        self.width, self.dtype = sample.shape[1], sample.dtype
        on_disk = self.views * int(np.prod(source.shape[1:])) * source.dtype.itemsize
        self._block = max(1, _BLOCK_BYTES // on_disk)
        self._buffer = (
            max(1, int(max_memory) // (4 * self.width * self.dtype.itemsize * self._block)) * self._block
        )

    def _read(self, start: int, stop: int, views: NDArray[np.int64] | None = None) -> NDArray[Any]:
        return pool(read_checked(self._source, start, stop, views), self._pooling)

    def shuffled(self, rng: np.random.Generator, batch_size: int) -> Iterator[tuple[Rows, NDArray[np.int32]]]:
        """Give pieces of whole batches; what is left of a piece goes in front of the next one."""
        views = draw_views(rng, self._photos, self.views)
        starts = rng.permutation(np.arange(0, self._photos, self._block))
        left: Rows | None = None
        for rows, is_last in self._pieces(starts, views):
            if left is not None:
                rows = Rows(*(np.concatenate(pair) for pair in zip(left, rows, strict=True)))
            order = rng.permutation(len(rows.labels)).astype(np.int32)
            whole = len(order) if is_last else len(order) // batch_size * batch_size
            left = Rows(*(column[order[whole:]] for column in rows))
            yield rows, order[:whole]

    def in_order(self) -> Iterator[Rows]:
        """Give all plain photos in their order."""
        for rows, _ in self._pieces(np.arange(0, self._photos, self._block)):
            yield rows

    def _pieces(
        self, starts: NDArray[Any], views: NDArray[np.int64] | None = None
    ) -> Iterator[tuple[Rows, bool]]:
        """Give the blocks' rows, a buffer full at a time, and whether they are the last."""
        per_piece = self._buffer // self._block
        parts = [starts[first : first + per_piece] for first in range(0, len(starts), per_piece)]
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(self._gathered, parts[0], views)
            for following in [*parts[1:], None]:
                rows = ahead.result()
                if following is not None:
                    ahead = reader.submit(self._gathered, following, views)
                yield rows, following is None

    def _gathered(self, starts: NDArray[Any], views: NDArray[np.int64] | None) -> Rows:
        spans = [(start, min(start + self._block, self._photos)) for start in starts]
        features = np.empty((sum(stop - start for start, stop in spans), self.width), self.dtype)
        at = 0
        for start, stop in spans:
            drawn = None if views is None else views[start:stop]
            features[at : at + stop - start] = self._read(start, stop, drawn)
            at += stop - start
        labels, weights = (
            np.concatenate([column[start:stop] for start, stop in spans])
            for column in (self._labels, self._weights)
        )
        return Rows.of(features, labels, weights=weights)
