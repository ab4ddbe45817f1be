"""The types that a base is made of: a built network, the engine that runs it, the store that remembers it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featcache.bases.spec import BaseSpec, network_key

NETWORK_FILE = "openvino.zip"


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
    """Runs a network; may be called from several threads at once.

    Attributes
    ----------
    name : str
    lost : bool
        Whether it belongs to the process that this one was forked from, and cannot be used here.
    """

    name: str
    lost: bool

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


class Layered:
    """Several stores as one: what the first one lacks is read from the others, which are never written.

    Parameters
    ----------
    own : SpecStore
    *others : SpecStore
        Such as the store that somebody else's file names.
    """

    def __init__(self, own: SpecStore, *others: SpecStore) -> None:
        self._own, self._all = own, (own, *others)

    def load_spec(self, key: str) -> dict[str, Any] | None:
        """Return what was saved under `key`, or None."""
        return next((found for store in self._all if (found := store.load_spec(key))), None)

    def save_spec(self, key: str, spec: dict[str, Any]) -> None:
        """Save JSON-ready data under `key` in the first store."""
        self._own.save_spec(key, spec)

    def load_file(self, base_name: str, name: str) -> bytes | None:
        """Return a file that was saved beside a base's shards, or None."""
        return next((found for store in self._all if (found := store.load_file(base_name, name))), None)

    def save_file(self, base_name: str, name: str, data: bytes) -> None:
        """Save a file beside a base's shards in the first store."""
        self._own.save_file(base_name, name, data)

    def mark_used(self, base_name: str) -> None:
        """Enter in the first store that a base was used."""
        self._own.mark_used(base_name)


class OneNetwork:
    """A converted network in memory, as a store that holds nothing else and keeps nothing.

    Parameters
    ----------
    spec : BaseSpec
        Of the base that it was converted from.
    data : bytes
        What `featcache.bases.openvino.convert` returned.
    """

    def __init__(self, spec: BaseSpec, data: bytes) -> None:
        self._files = {(spec.folder_name, NETWORK_FILE): data}
        self._specs = {network_key(spec): {"sha256": hashlib.sha256(data).hexdigest()}}

    def load_spec(self, key: str) -> dict[str, Any] | None:
        """Return the network's hash under the base's `network_key`, else None."""
        return self._specs.get(key)

    def save_spec(self, key: str, spec: dict[str, Any]) -> None:
        """Save nothing."""

    def load_file(self, base_name: str, name: str) -> bytes | None:
        """Return the network as the base's `NETWORK_FILE`, else None."""
        return self._files.get((base_name, name))

    def save_file(self, base_name: str, name: str, data: bytes) -> None:
        """Save nothing."""

    def mark_used(self, base_name: str) -> None:
        """Enter nothing."""
