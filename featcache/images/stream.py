"""Photos as a stream of pixels: decoded in threads, a bounded number ahead, given in order."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ImageError
from featcache.images.decode import decode
from featcache.images.table import digest_of
from featcache.recipe import BaseSettings

_DECODERS = 2

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Photo:
    """A file to decode.

    Attributes
    ----------
    path : str
    digest : bytes
        What the file's bytes must hash to; empty when any bytes will do.
    """

    path: str
    digest: bytes = b""


def decoded(
    photos: Iterable[Photo],
    settings: BaseSettings,
    ahead: int,
    failed: Callable[[Photo, str], None],
) -> Iterator[tuple[Photo, NDArray[np.uint8]]]:
    """Yield each photo that can be decoded with its pixels (height, width, 3), in order.

    Parameters
    ----------
    photos : iterable of Photo
    settings : BaseSettings
        Of which image size, resize and interpolation count here.
    ahead : int
        How many photos are decoded before they are asked for, at most.
    failed : callable
        Is told photo and reason of each that cannot be decoded.
    """
    waiting: deque[tuple[Photo, Future[NDArray[np.uint8]]]] = deque()
    todo = iter(photos)
    pool = ThreadPoolExecutor(_DECODERS, thread_name_prefix="decode")
    try:
        while True:
            for photo in itertools.islice(todo, ahead - len(waiting)):
                waiting.append((photo, pool.submit(_pixels, photo, settings)))
            if not waiting:
                return
            photo, future = waiting.popleft()
            try:
                pixels = future.result()
            except ImageError as error:
                failed(photo, str(error))
            else:
                yield photo, pixels
    finally:
        pool.shutdown(cancel_futures=True)


def _pixels(photo: Photo, settings: BaseSettings) -> NDArray[np.uint8]:
    try:
        data = Path(photo.path).read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}") from None
    if photo.digest and digest_of(data) != photo.digest:
        # its row would carry another photo's key
        raise ImageError("changed while it was being read; run again")
    return decode(data, settings.image_size, settings.resize, settings.interpolation)


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of `size`; the last may be shorter."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
