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
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from featcache.bases.base import Base
from featcache.errors import FeaturesError, ImageError
from featcache.images.decode import Decoded, decode_views, decoding_of
from featcache.images.facts import FACTS
from featcache.images.index import Entry
from featcache.images.memory import decode_content, fitted
from featcache.images.source import check_name, digest_of, read_with_state
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
        What the file's bytes must hash to; empty when any bytes will do, or when they are hashed on reading.
    view : View or None
        Which view of the photo; None is the plain photo. Views are drawn from the digest.
    content : object
        What `featcache.images.memory.decode_content` takes; None for files.
    """

    path: str
    digest: bytes = b""
    view: View | None = None
    content: Any = field(default=None, compare=False)


Select = Callable[[Photo, bytes], "Sequence[View | None]"]
"""Chooses the views to compute of a photo whose bytes have this digest."""


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
    facts : list of ndarray of float32, shape (number of facts,)
        Of `photos`, as in `featcache.images.facts`; NaN for views.
    failed : list of (Photo, str)
        The others, with reasons.
    read : list of (path, FileState, digest)
        Files whose bytes were hashed.
    moment : int
        When reading began, in nanoseconds since 1970.
    seconds : Seconds
    """

    asked: Sequence[Photo]
    moment: int = field(default_factory=time.time_ns)
    photos: list[Photo] = field(default_factory=list)
    features: NDArray[Any] | None = None
    facts: list[NDArray[np.float32]] = field(default_factory=list)
    failed: list[tuple[Photo, str]] = field(default_factory=list)
    read: list[Entry] = field(default_factory=list)
    seconds: Seconds = field(default_factory=Seconds)


def featurize(
    photos: Sequence[Photo], base: Base, select: Select | None = None, most_views: int = 1
) -> Iterator[Batch]:
    """Yield the photos' features in batches of ``base.settings.batch_size``, in order.

    Parameters
    ----------
    photos : sequence of Photo
    base : Base
        Its network is built or loaded when the first photo is decoded, not before.
    select : callable, optional
        Called by the workers with a photo and the digest of its bytes; returns the views to compute. So a
        photo's bytes are read once, although its digest decides what is done with them. Without it the view
        of each photo is computed.
    most_views : int
        Largest number of views that `select` returns; a batch has fewer photos then.

    Raises
    ------
    FeaturesError
        A value cannot be stored; names a photo of the batch.
    BaseNetworkError, WeightsError, ModelError
        The base cannot be built.
    """
    spans = _spans(len(photos), max(1, base.settings.batch_size // most_views))
    parts = (photos[start:stop] for start, stop in spans)
    return _in_order(lambda part: _featurize_batch(part, base, select), parts, len(spans), base)


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
    spans = _spans(len(pixels), base.settings.batch_size)
    parts = ((start, pixels[start:stop]) for start, stop in spans)
    how = decoding_of(base.settings)

    def work(part: tuple[int, NDArray[np.uint8]]) -> NDArray[Any]:
        return _features(fitted(part[1], how), base, f"row {part[0]}")

    return _in_order(work, parts, len(spans), base)


def _spans(count: int, size: int) -> list[tuple[int, int]]:
    return [(start, start + size) for start in range(0, count, size)]


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
    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(lambda path: _pixels(Photo(path), settings), paths)))


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
        return _pixels(photo, settings)
    except ImageError:
        return None


def _featurize_batch(photos: Sequence[Photo], base: Base, select: Select | None) -> Batch:
    batch, parts = Batch(photos), []
    pixels: list[NDArray[np.uint8]] = []
    for photo in photos:
        asked = [photo]
        try:
            data, asked = _read(photo, select, batch)
            for start, stop in _spans(len(asked), base.settings.batch_size):  # bounds the memory for pixels
                decoded = _decode(data, asked[start:stop], base.settings, batch.seconds)
                pixels.extend(decoded.pixels)
                batch.photos.extend(asked[start:stop])
                batch.facts.extend(_facts_of(one, decoded) for one in asked[start:stop])
                if len(pixels) >= base.settings.batch_size:
                    parts.append(_run(pixels, base, batch))
                    pixels = []
        except ImageError as error:
            batch.failed.extend((one, str(error)) for one in asked)
    if pixels:
        parts.append(_run(pixels, base, batch))
    if parts:
        batch.features = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return batch


def _facts_of(photo: Photo, decoded: Decoded) -> NDArray[np.float32]:
    if photo.view is None and decoded.facts is not None:
        return decoded.facts
    return np.full(len(FACTS), np.nan, np.float32)


def _run(pixels: Sequence[NDArray[np.uint8]], base: Base, batch: Batch) -> NDArray[Any]:
    """Run the base on any number of pixels; it takes up to a batch of them at once."""
    base.prepare()
    started = time.perf_counter()
    parts = [
        _features(np.stack(pixels[start:stop]), base, batch.photos[0].path)
        for start, stop in _spans(len(pixels), base.settings.batch_size)
    ]
    batch.seconds.inference += time.perf_counter() - started
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _read(photo: Photo, select: Select | None, batch: Batch) -> tuple[bytes, list[Photo]]:
    """Return a photo's bytes and, with their digest, the views of it to compute."""
    if photo.content is not None:
        return b"", [photo]
    started = time.perf_counter()
    try:
        if select is not None:
            check_name(photo.path)
        data, state = read_with_state(photo.path)
        digest = digest_of(data) if select is not None or photo.digest else b""
    finally:
        batch.seconds.reading += time.perf_counter() - started
    if photo.digest and digest != photo.digest:
        # its row would carry another photo's key
        raise ImageError("changed while it was being read; run again")
    if select is None:
        return data, [photo]
    batch.read.append((photo.path, state, digest))
    return data, [Photo(photo.path, digest, view) for view in select(photo, digest)]


def _decode(data: bytes, photos: Sequence[Photo], settings: BaseSettings, seconds: Seconds) -> Decoded:
    """Decode views of one photo."""
    started, how, content = time.perf_counter(), decoding_of(settings), photos[0].content
    try:
        if content is not None:
            return Decoded([decode_content(content, how)], None)
        return decode_views(data, photos[0].digest, [one.view for one in photos], how)
    finally:
        seconds.decoding += time.perf_counter() - started


def _features(pixels: NDArray[np.uint8], base: Base, first: str) -> NDArray[Any]:
    try:
        return base.features(pixels)
    except FeaturesError as error:
        raise FeaturesError(f"{error} (in the batch from {first} on)") from None


def _pixels(photo: Photo, settings: BaseSettings) -> NDArray[np.uint8]:
    batch = Batch([photo])
    data, _ = _read(photo, None, batch)
    return _decode(data, [photo], settings, batch.seconds).pixels[0]
