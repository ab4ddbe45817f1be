"""A base as the other rooms use it: its spec at once where it is known, its network only when pixels come."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache import processor
from featcache.bases.contract import NETWORK_FILE, Engine, Network, SpecStore
from featcache.bases.needs import what_is_needed, wrong_weights
from featcache.bases.resolution import Resolution, choose_precision, relative_difference
from featcache.bases.spec import (
    BaseSpec,
    allowed_precisions,
    check_settings,
    network_key,
    spec_key,
    stored_dtype,
)
from featcache.errors import BaseNetworkError, FeaturesError, ModelError, StoreError
from featcache.recipe import BaseSettings
from featcache.runtime import refuse_after_fork

Sample = Callable[[], NDArray[np.uint8] | None]
"""Gives a few decoded photos (n, height, width, 3), or None where there are none."""

# Keras counts layers per process, and neither its import nor OpenVINO's first call may happen twice at once.
_BUILDING = threading.RLock()


def _renew_lock() -> None:
    """Forget who holds the lock: in a forked process that thread may not exist."""
    global _BUILDING
    _BUILDING = threading.RLock()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_renew_lock)


class Base:
    """A frozen network from pixels to features. Thread-safe, and usable in forked processes with OpenVINO.

    Parameters
    ----------
    settings : BaseSettings
    store : SpecStore, optional
        Where the resolved spec and the converted network are loaded from and saved to.
    note : callable, optional
        Kept as an attribute and called with one sentence: when TensorFlow runs the base because OpenVINO
        cannot, what bf16 costs, when the stored network is damaged.
    spec : BaseSpec, optional
        The spec of the base that a model was trained on. With the converted network in `store` nothing is
        built, and the weights file is not needed.

    Raises
    ------
    BaseNetworkError, WeightsError
        What `check_settings` finds; when the network is built, what `build_network` finds.
    """

    def __init__(
        self,
        settings: BaseSettings,
        store: SpecStore | None = None,
        note: Callable[[str], None] = lambda _: None,
        spec: BaseSpec | None = None,
    ) -> None:
        if spec is None:
            check_settings(settings)
        self.settings = settings
        self._store = store
        self.note = note
        self._required = spec
        self._resolution = None if spec is None else Resolution(spec)
        self._engines: dict[str, Engine] = {}  # by precision
        self.prepare_seconds = 0.0

    # ---- the spec ----------------------------------------------------------------------------------------

    @property
    def known(self) -> Resolution | None:
        """What the settings resolve to, if that is known without building the network."""
        if self._resolution is not None or self._store is None:
            return self._resolution
        try:
            return Resolution.from_json(self._store.load_spec(self._spec_key) or {}, self.settings)
        except (ValueError, KeyError, TypeError):
            return None  # resolved elsewhere or damaged: it is resolved here

    @property
    def known_spec(self) -> BaseSpec | None:
        """The spec, if it is known without building the network."""
        known = self.known
        return None if known is None else known.spec

    @property
    def spec(self) -> BaseSpec:
        """The spec; the network is built if it is not known."""
        return self.resolve().spec

    def resolve(self, sample: Sample | None = None) -> Resolution:
        """Return the spec and how its precision was chosen, building the network if that is not known.

        Parameters
        ----------
        sample : callable, optional
            Called where photos are needed to compare bf16 with f32. Without photos "auto" means f32.
        """
        if self._resolution is None:
            with _BUILDING:
                if self._resolution is None:
                    self._resolution = self.known or self._decided(sample)
        return self._resolution

    @cached_property
    def _spec_key(self) -> str:
        return spec_key(self.settings)

    def _decided(self, sample: Sample | None) -> Resolution:
        network, converted = self._network, self._converted
        difference, photos = None, 0
        if converted is not None and processor.has_bf16() and "bf16" in allowed_precisions(self.settings):
            pixels = None if sample is None else sample()
            if pixels is not None:
                difference, photos = self._bf16_difference(network, converted, pixels), len(pixels)
        precision = choose_precision(self.settings, difference, converted is not None)
        spec = network.with_precision(precision, stored_dtype(self.settings, precision)).spec
        resolution = Resolution(spec, difference, photos)
        if sentence := resolution.sentence(self.settings.precision):
            self.note(sentence)
        self._save_network(spec, converted)
        if photos or converted is None or len(allowed_precisions(self.settings)) == 1:
            self._save(lambda store: store.save_spec(self._spec_key, resolution.to_json()))
        return resolution

    def _bf16_difference(self, network: Network, converted: bytes, pixels: NDArray[np.uint8]) -> float:
        from featcache.bases.openvino import OpenVINOEngine

        size = self.settings.batch_size
        exact, bf16 = (OpenVINOEngine(converted, network.spec, size, name) for name in ("f32", "bf16"))
        return relative_difference(bf16, exact, pixels, size)

    # ---- the network -------------------------------------------------------------------------------------

    @cached_property
    def _network(self) -> Network:
        refuse_after_fork()
        try:
            check_settings(self.settings)
            with _BUILDING:
                from featcache.bases.sources import build_network

                return build_network(self.settings)
        except (BaseNetworkError, ImportError) as error:
            if self._required is None:
                raise
            raise ModelError(what_is_needed(self.settings, self._required, error)) from None

    @cached_property
    def _converted(self) -> bytes | None:
        """The network as OpenVINO's; None where TensorFlow runs it."""
        if self.settings.engine == "tensorflow":
            return None
        from featcache.bases.openvino import convert

        try:
            with _BUILDING:
                return convert(self._network)
        except BaseNetworkError as error:
            if self.settings.engine == "openvino" or self.settings.precision == "bf16":
                raise BaseNetworkError(f"{error}. TensorFlow can run it: --engine tensorflow") from None
            self.note(f"{error}. TensorFlow runs it, in f32")
            return None

    def keras_network(self) -> Network:
        """Build the network and return it, without converting it.

        Raises
        ------
        ModelError
            It is no longer the one that a model was trained on.
        BaseNetworkError, WeightsError
            It cannot be built.
        """
        network = self._network.with_precision(self.spec.precision, self.spec.dtype)
        # the network of a model stays the same when photos are decoded otherwise
        network = replace(network, spec=replace(network.spec, decoder=self.spec.decoder))
        if network.spec.fingerprint == self.spec.fingerprint:
            return network
        if self._required is None:
            now, then = network.spec.folder_name, self.spec.folder_name
            self._save(lambda store: store.save_spec(self._spec_key, {}))  # an empty entry is no entry
            raise ModelError(
                f"{self.settings.name} built now is {now} and was remembered as {then}; that entry is now "
                "removed: run again"
            )
        raise ModelError(wrong_weights(network.spec, self.spec))

    def converted_network(self) -> bytes:
        """Return the network as `NETWORK_FILE` holds it, converting it if no store has it.

        Raises
        ------
        BaseNetworkError, WeightsError, ModelError
            As `keras_network`; or OpenVINO cannot convert it.
        """
        stored = self._stored_network()
        if stored is not None:
            return stored
        self.keras_network()
        if self._converted is None:
            raise BaseNetworkError(f"{self.spec.name} is run by TensorFlow and has no converted network")
        self._save_network(self.spec, self._converted)
        return self._converted

    def _save_network(self, spec: BaseSpec, converted: bytes | None) -> None:
        if converted is None:
            return

        def save(store: SpecStore) -> None:
            store.save_file(spec.folder_name, NETWORK_FILE, converted)
            store.save_spec(network_key(spec), {"sha256": hashlib.sha256(converted).hexdigest()})

        self._save(save)

    def _save(self, save: Callable[[SpecStore], None]) -> None:
        if self._store is None:
            return
        try:
            save(self._store)
        except StoreError as error:
            # predicting does not need a store that can be written; it only starts slower
            self.note(f"{error}; the network is built again next time")

    def _stored_network(self) -> bytes | None:
        """Return the converted network of an earlier run, if it is the one that was saved for this base."""
        data = None if self._store is None else self._store.load_file(self.spec.folder_name, NETWORK_FILE)
        if self._store is None or data is None:
            return None
        saved = self._store.load_spec(network_key(self.spec)) or {}
        if saved.get("sha256") == hashlib.sha256(data).hexdigest():
            self._store.mark_used(self.spec.folder_name)
            return data
        self.note(
            f"the converted network of {self.spec.folder_name} in the store is damaged or was replaced; the "
            "network is converted again"
        )
        return None

    # ---- running it --------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Build or load what runs the network; takes seconds the first time, nothing later."""
        self.engine  # noqa: B018

    @property
    def engine(self) -> Engine:
        """Runs the network in the spec's precision; a bf16 model in f32 where the processor has no bf16."""
        return self._engine_in(self._usable_precision())

    def _usable_precision(self) -> str:
        if self.spec.precision == "f32" or processor.has_bf16():
            return self.spec.precision
        if self._required is None:
            raise BaseNetworkError(
                "base.precision = 'bf16' needs a processor with AMX or AVX512-BF16, which this one does not "
                "have; use --precision f32 or auto"
            )
        if not self._engines:
            self.note("the model was trained on bf16 features; this processor has no bf16: base runs in f32")
        return "f32"

    def _engine_in(self, precision: str) -> Engine:
        """Return the engine, made anew where the one at hand was left behind by a fork."""
        found = self._engines.get(precision)
        if found is not None and not found.lost:
            return found
        with _BUILDING:
            found = self._engines.get(precision)
            if found is None or found.lost:
                started = time.perf_counter()
                found = self._made_engine(precision)
                self._engines[precision] = found
                self.prepare_seconds += time.perf_counter() - started
            return found

    def _made_engine(self, precision: str) -> Engine:
        if self.settings.engine == "tensorflow":
            return self._tensorflow_engine()
        return self._stored_engine(precision) or self._new_engine(precision)

    def _stored_engine(self, precision: str) -> Engine | None:
        data = self._stored_network()
        if data is None:
            return None
        try:
            return self._openvino_engine(data, precision)
        except (ValueError, RuntimeError) as error:
            # whole, but written by another version of OpenVINO
            self.note(f"the converted network in the store cannot be loaded ({error}); it is converted again")
            return None

    def _new_engine(self, precision: str) -> Engine:
        self.keras_network()
        if self._converted is None:
            return self._tensorflow_engine()
        self._save_network(self.spec, self._converted)
        return self._openvino_engine(self._converted, precision)

    def _openvino_engine(self, data: bytes, precision: str) -> Engine:
        from featcache.bases.openvino import OpenVINOEngine

        return OpenVINOEngine(data, self.spec, self.settings.batch_size, precision)

    def _tensorflow_engine(self) -> Engine:
        from featcache.bases.tensorflow import TensorFlowEngine

        return TensorFlowEngine(self.keras_network(), self.settings.batch_size)

    @property
    def parallel(self) -> int:
        """How many threads may call `features` at once."""
        return processor.cores()

    def features(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """Return the features (n, ...) of pixels (n, height, width, 3), n up to ``settings.batch_size``.

        Raises
        ------
        FeaturesError
            A value is not finite, or does not fit the stored dtype.
        """
        return stored(self.engine(pixels), self.spec.dtype)

    def f32_features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features computed and kept in f32, whatever the precision and dtype of the spec."""
        return self._engine_in("f32")(pixels)


def stored(features: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """Return features in the dtype in which they are stored.

    Raises
    ------
    FeaturesError
        A value is not finite, or larger than the dtype can hold.
    """
    largest = float(np.abs(features).max(initial=0.0))
    if not np.isfinite(largest):
        raise FeaturesError(
            "the base gave values that are not finite; its weights may be damaged, or base.preprocessing is "
            "not the one they were trained with"
        )
    limit = float(np.finfo(dtype).max)
    if largest > limit:
        raise FeaturesError(
            f"the base gave a value of {largest:g}, and {dtype} holds at most {limit:g}; use --dtype float32"
        )
    return features.astype(dtype, copy=False)
