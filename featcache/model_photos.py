"""Which photos a model was trained on and which it was chosen on, by the first bytes of their digests."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from featcache.archives import DAMAGE, read_arrays

PHOTOS_FILE = "photos.npz"

MAX_PHOTOS_BYTES = 256 << 20
"""A larger file is not read: 16 million photos."""

_PREFIX = 8
_MEMBERS = ("trained", "chosen")


@dataclass(frozen=True, eq=False)
class ModelPhotos:
    """The photos that had a part in a model.

    Of each digest the first 8 bytes are kept. That two of a million photos share them has a probability of
    3e-8.

    Attributes
    ----------
    trained : uint64 array of shape (n,), sorted
        The photos that the head, or fine-tuned layers of the base, were fitted on.
    chosen : uint64 array of shape (m,), sorted
        Those that only helped to choose the model: the validation photos that heads are compared on, that
        stop the training early, or that probabilities are calibrated on.
    """

    trained: NDArray[np.uint64]
    chosen: NDArray[np.uint64]

    @classmethod
    def of(cls, trained: NDArray[np.uint8], chosen: NDArray[np.uint8]) -> Self:
        """Return the photos of these digests, arrays of shape (n, 32) and (m, 32)."""
        first, second = np.unique(prefixes(trained)), np.unique(prefixes(chosen))
        return cls(first, np.setdiff1d(second, first, assume_unique=True))

    def trained_on(self, digests: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Return which of the photos with these digests, (n, 32), the model was trained on, (n,)."""
        return _among(prefixes(digests), self.trained)

    def chosen_on(self, digests: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Return which of the photos with these digests, (n, 32), only helped to choose the model, (n,)."""
        return _among(prefixes(digests), self.chosen)

    def to_bytes(self) -> bytes:
        """Return the content of ``photos.npz``."""
        data = io.BytesIO()
        np.savez(data, trained=self.trained, chosen=self.chosen)
        return data.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read the content of ``photos.npz``.

        Raises
        ------
        ValueError
            It is damaged, or no such file.
        """
        try:
            found = read_arrays(data)
            arrays = [_checked(found[name]) for name in _MEMBERS]
        except DAMAGE as error:
            raise ValueError(f"no photos of a model: {error}") from None
        return cls(*arrays)


def prefixes(digests: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the first 8 bytes of digests, (n, 32), as big-endian numbers, (n,)."""
    starts = np.ascontiguousarray(np.asarray(digests, np.uint8).reshape(-1, 32)[:, :_PREFIX])
    return starts.view(">u8").astype(np.uint64).reshape(-1)


def _among(numbers: NDArray[np.uint64], known: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return which numbers are in a sorted array; `numpy.isin` would sort it for every photo."""
    places = np.searchsorted(known, numbers)
    found = np.zeros(len(numbers), bool)
    inside = places < len(known)
    found[inside] = known[places[inside]] == numbers[inside]
    return found


def _checked(array: NDArray[Any]) -> NDArray[np.uint64]:
    if array.dtype != np.uint64 or array.ndim != 1 or (array[1:] <= array[:-1]).any():
        raise ValueError(f"an array of {array.shape} {array.dtype} in place of sorted numbers")
    return array
