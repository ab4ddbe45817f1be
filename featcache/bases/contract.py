"""The types that a base is made of: a built network, the engine that runs it, the store that remembers it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featcache.bases.spec import BaseSpec


@dataclass(frozen=True)
class Network:
    """A base built in Keras.

    Attributes
    ----------
    model : keras.Model
        From uint8 pixels (n, height, width, 3) to float32 features (n, ...).
    spec : BaseSpec
    body : keras.Model
        The network itself, without preprocessing and pooling.
    """

    model: Any
    spec: BaseSpec
    body: Any

    def with_precision(self, precision: str, dtype: str) -> Network:
        """Return the same network under a spec of another precision and stored dtype."""
        return replace(self, spec=replace(self.spec, precision=precision, dtype=dtype))


class Engine(Protocol):
    """Runs a network; may be called from several threads at once."""

    name: str

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features (n, ...) of pixels (n, height, width, 3), for n up to the batch size."""


class SpecStore(Protocol):
    """Keeps resolved specs and converted networks between runs; `featcache.store.base_store.Store` is one."""

    def load_spec(self, key: str) -> dict[str, Any] | None:
        """Return what was saved under `key`, or None."""

    def save_spec(self, key: str, spec: dict[str, Any]) -> None:
        """Save JSON-ready data under `key`."""

    def load_file(self, base_name: str, name: str) -> bytes | None:
        """Return a file that was saved beside a base's shards, or None."""

    def save_file(self, base_name: str, name: str, data: bytes) -> None:
        """Save a file beside a base's shards."""

    def mark_used(self, base_name: str) -> None:
        """Enter that a base was used."""


class ReadOnly:
    """A store that is read and never written: one that somebody else's file names.

    Parameters
    ----------
    store : SpecStore
    """

    def __init__(self, store: SpecStore) -> None:
        self._store = store

    def load_spec(self, key: str) -> dict[str, Any] | None:
        """Return what was saved under `key`, or None."""
        return self._store.load_spec(key)

    def save_spec(self, key: str, spec: dict[str, Any]) -> None:
        """Save nothing."""

    def load_file(self, base_name: str, name: str) -> bytes | None:
        """Return a file that was saved beside a base's shards, or None."""
        return self._store.load_file(base_name, name)

    def save_file(self, base_name: str, name: str, data: bytes) -> None:
        """Save nothing."""

    def mark_used(self, base_name: str) -> None:
        """Enter nothing."""
