"""Photos → features, batch by batch, in order and in bounded memory: what extraction and prediction share.

One worker per core takes a batch through all steps: read, decode, run the base. So every core is busy
with one thing at a time, reading and decoding overlap with inference of other batches, and nothing waits
in queues. Measured against decoding threads beside inference threads, which get in each other's way.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from featcache.bases.base import Base
from featcache.errors import FeaturesError, ImageError
from featcache.images.decode import decode_views
from featcache.images.memory import decode_content, fitted
from featcache.images.source import digest_of, read_photo
from featcache.images.views import View
from featcache.recipe import BaseSettings

# Batches that may be finished before the oldest is taken; more would only cost memory.
_AHEAD = 2

_Part = TypeVar("_Part")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo to decode: a file, or what is in memory.

    Attributes
    ----------
    path : str
        Empty for photos in memory.
    digest : bytes
        What the file's bytes must hash to; empty when any bytes will do.
    view : View or None
        Which view of the photo; None is the plain photo. Views are drawn from the digest.
    content : object
        What `featcache.images.memory.decode_content` takes; None for files.
    """

    path: str
    digest: bytes = b""
    view: View | None = None
    content: Any = field(default=None, compare=False)


@dataclass
class Seconds:
    """Time spent, summed over all workers."""

    reading: float = 0.0
    decoding: float = 0.0
    inference: float = 0.0

    def add(self, other: Seconds) -> None:
        """Add the times of another batch."""
        self.reading += other.reading
        self.decoding += other.decoding
        self.inference += other.inference


@dataclass
class Batch:
    """Result of one batch of photos.

    Attributes
    ----------
    asked : sequence of Photo
    photos : list of Photo
        Those of them that could be decoded.
    features : ndarray, shape (len(photos), ...)
    failed : list of (Photo, str)
        The others, with reasons.
    seconds : Seconds
    """

    asked: Sequence[Photo]
    photos: list[Photo] = field(default_factory=list)
    features: NDArray[Any] | None = None
    failed: list[tuple[Photo, str]] = field(default_factory=list)
    seconds: Seconds = field(default_factory=Seconds)


def featurize(photos: Sequence[Photo], base: Base) -> Iterator[Batch]:
    """Yield the photos' features in batches of ``base.settings.batch_size``, in order.

    Parameters
    ----------
    photos : sequence of Photo
        Views of one photo that stand one after another are decoded together.
    base : Base
        Its network is built or loaded when the first photo is decoded, not before.

    Raises
    ------
    FeaturesError
        A value cannot be stored; names a photo of the batch.
    BaseNetworkError, WeightsError, ModelError
        The base cannot be built.
    """
    spans = _spans(len(photos), base)
    parts = (photos[start:stop] for start, stop in spans)
    return _in_order(lambda part: _featurize_batch(part, base), parts, len(spans), base)


def featurize_pixels(pixels: Any, base: Base) -> Iterator[NDArray[Any]]:
    """Yield the features of photos that are decoded already, in batches, in order.

    Parameters
    ----------
    pixels : array of shape (n, height, width, 3), uint8
        With 1 or 4 channels as well, and of any height and width, which are resized as photos are. Or what is
        read like an array: of an h5py dataset or a memory map only a few batches are in memory at once.
    base : Base

    Raises
    ------
    FeaturesError
        A value cannot be stored; names a row of the batch.
    BaseNetworkError, WeightsError, ModelError
        The base cannot be built.
    """
    spans = _spans(len(pixels), base)
    parts = ((start, pixels[start:stop]) for start, stop in spans)

    def work(part: tuple[int, NDArray[np.uint8]]) -> NDArray[Any]:
        return _features(fitted(part[1], *_how(base.settings)), base, f"row {part[0]}")

    return _in_order(work, parts, len(spans), base)


def _spans(count: int, base: Base) -> list[tuple[int, int]]:
    size = base.settings.batch_size
    return [(start, start + size) for start in range(0, count, size)]


def _how(settings: BaseSettings) -> tuple[tuple[int, int], str, str]:
    return settings.image_size, settings.resize, settings.interpolation


def _in_order(
    work: Callable[[_Part], _Result], parts: Iterable[_Part], count: int, base: Base
) -> Iterator[_Result]:
    """Give the results of `work` in order, while workers are a bounded number of batches ahead."""
    if count == 1:  # starting a worker can take as long as a small photo
        yield from map(work, parts)
        return
    pool = ThreadPoolExecutor(base.parallel, thread_name_prefix="featurize")
    waiting: deque[Future[_Result]] = deque()
    try:
        for part in parts:
            waiting.append(pool.submit(work, part))
            if len(waiting) >= base.parallel + _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def decode_photos(paths: Sequence[str], settings: BaseSettings) -> NDArray[np.uint8]:
    """Read and decode photos into memory, shape (n, height, width, 3).

    Raises
    ------
    ImageError
        One of them cannot be decoded.
    """
    spent = Seconds()
    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(lambda path: _pixels([Photo(path)], settings, spent)[0], paths)))


def decode_unchanged(
    photos: Sequence[Photo], settings: BaseSettings
) -> tuple[list[int], list[NDArray[np.uint8]]]:
    """Read and decode the photos that are still there and are what they were.

    Returns
    -------
    places : list of int
        Which of `photos` they are.
    pixels : list of arrays of shape (height, width, 3), uint8
    """
    with ThreadPoolExecutor() as pool:
        decoded = list(pool.map(lambda photo: _pixels_or_none(photo, settings), photos))
    found = {place: pixels for place, pixels in enumerate(decoded) if pixels is not None}
    return list(found), list(found.values())


def _pixels_or_none(photo: Photo, settings: BaseSettings) -> NDArray[np.uint8] | None:
    try:
        return _pixels([photo], settings, Seconds())[0]
    except ImageError:
        return None


def _featurize_batch(photos: Sequence[Photo], base: Base) -> Batch:
    batch = Batch(photos)
    pixels: list[NDArray[np.uint8]] = []
    for _, same in groupby(photos, lambda photo: (photo.path, photo.digest, id(photo.content))):
        views = list(same)
        try:
            pixels.extend(_pixels(views, base.settings, batch.seconds))
            batch.photos.extend(views)
        except ImageError as error:
            batch.failed.extend((view, str(error)) for view in views)
    if pixels:
        stacked = np.stack(pixels)
        base.prepare()
        started = time.perf_counter()
        batch.features = _features(stacked, base, batch.photos[0].path)
        batch.seconds.inference += time.perf_counter() - started
    return batch


def _features(pixels: NDArray[np.uint8], base: Base, first: str) -> NDArray[Any]:
    try:
        return base.features(pixels)
    except FeaturesError as error:
        raise FeaturesError(f"{error} (in the batch from {first} on)") from None


def _pixels(views: Sequence[Photo], settings: BaseSettings, seconds: Seconds) -> list[NDArray[np.uint8]]:
    """Read a file once and decode views of it."""
    started, photo = time.perf_counter(), views[0]
    if photo.content is not None:
        pixels = decode_content(photo.content, *_how(settings))
        seconds.decoding += time.perf_counter() - started
        return [pixels] * len(views)
    data = read_photo(photo.path)
    if photo.digest and digest_of(data) != photo.digest:
        # its row would carry another photo's key
        raise ImageError("changed while it was being read; run again")
    read = time.perf_counter()
    seconds.reading += read - started
    try:
        return decode_views(data, photo.digest, [one.view for one in views], *_how(settings))
    finally:
        seconds.decoding += time.perf_counter() - read
