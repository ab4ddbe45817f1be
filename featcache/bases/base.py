"""A base as others see it: its facts at once where they are known, its network only when pixels come."""

from __future__ import annotations

import threading
import time
import zipfile
import zlib
from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featcache.bases.spec import BaseSpec, check_settings, question, resolved_precision
from featcache.errors import BaseNetworkError, FeaturesError, ModelError, StoreError
from featcache.processor import cores, has_bf16
from featcache.recipe import BaseSettings

_NETWORK_FILE = "openvino.zip"


class Memory(Protocol):
    """A cache of what is resolved about bases; `featcache.store.base_store.Store` is one."""

    def load_spec(self, key: str) -> dict[str, Any] | None:
        """Return the base spec saved under `key`, or None."""

    def save_spec(self, key: str, spec: dict[str, Any]) -> None:
        """Save a resolved base spec."""

    def load_file(self, base_name: str, name: str) -> bytes | None:
        """Return a file saved beside the shards of a base, or None."""

    def save_file(self, base_name: str, name: str, data: bytes) -> None:
        """Save a file beside the shards of a base."""


class Base:
    """A frozen network from pixels to features.

    Parameters
    ----------
    settings : BaseSettings
    memory : Memory, optional
        Asked for the facts and the converted network before anything is built, and told them after.
    note : callable, optional
        Is told one sentence when OpenVINO cannot run this base and TensorFlow does.
    spec : BaseSpec, optional
        What the base must be, for a model that was trained on it. With the converted network in `memory`
        nothing is built, and the weights file is not needed any more.

    Raises
    ------
    BaseNetworkError, WeightsError
        What `check_settings` finds; when the network is built, what `build_network` finds.
    """

    def __init__(
        self,
        settings: BaseSettings,
        memory: Memory | None = None,
        note: Callable[[str], None] = lambda _: None,
        spec: BaseSpec | None = None,
    ) -> None:
        if spec is None:
            check_settings(settings)
        self.settings = settings
        self._memory = memory
        self._note = note
        self._required = spec
        self._lock = threading.Lock()
        self._converted: bytes | None = None
        self.prepare_seconds = 0.0

    @property
    def known_spec(self) -> BaseSpec | None:
        """The facts, if they are known without building the network."""
        if self._required is not None:
            return self._required
        facts = self._memory.load_spec(self._question) if self._memory else None
        return BaseSpec.from_json(facts) if facts else None

    @cached_property
    def _question(self) -> str:
        return question(self.settings)

    @cached_property
    def spec(self) -> BaseSpec:
        """The facts; the network is built if they are not known."""
        known = self.known_spec
        return self._network.spec if known is None else known

    @cached_property
    def _built(self) -> Any:
        from featcache.bases.sources import build_network

        check_settings(self.settings)
        return build_network(self.settings, *self._numbers())

    @cached_property
    def _network(self) -> Any:
        """The network in Keras, converted as well where the settings want that."""
        network, (precision, dtype) = self._built, self._numbers()
        self._converted = self._convert(network)
        if self._converted is None and self.settings.precision == "auto" and precision != "f32":
            dtype = "float32" if self.settings.dtype == "auto" else dtype
            network = network.with_precision("f32", dtype)
        self._remember(network.spec)
        return network

    def _numbers(self) -> tuple[str, str]:
        """Return precision and stored type: a model keeps those that its head was trained on."""
        if self._required is not None:
            return self._required.precision, self._required.dtype
        return resolved_precision(self.settings)

    def _remember(self, spec: BaseSpec) -> None:
        if self._memory is None:
            return
        known = self._required
        # a base file that was renamed since is the same base
        shelf = known if known is not None and known.fingerprint == spec.fingerprint else spec
        try:
            if self._converted is not None:
                self._memory.save_file(shelf.folder_name, _NETWORK_FILE, self._converted)
            self._memory.save_spec(self._question, spec.to_json())
        except StoreError as error:
            # predicting needs no store that can be written; it only starts slower
            self._note(f"{error}; the network is built again next time")

    def _convert(self, network: Any) -> bytes | None:
        if self.settings.engine == "tensorflow":
            return None
        from featcache.bases.openvino import convert

        try:
            return convert(network)
        except BaseNetworkError as error:
            if self.settings.engine == "openvino" or self.settings.precision == "bf16":
                raise BaseNetworkError(f"{error}. TensorFlow can run it: --engine tensorflow") from None
            self._note(f"{error}. TensorFlow runs it, in f32")
            return None

    def prepare(self) -> None:
        """Build or load what runs the network; takes seconds the first time, nothing later. Thread-safe."""
        with self._lock:
            if "engine" not in self.__dict__:
                started = time.perf_counter()
                self.engine  # noqa: B018
                self.prepare_seconds = time.perf_counter() - started

    @cached_property
    def engine(self) -> Any:
        """What runs the network: called with pixels, from `parallel` threads at once."""
        if self.settings.engine == "tensorflow":
            return self._tensorflow_engine()
        return self._kept_engine() or self._new_engine()

    def _kept_engine(self) -> Any:
        """Return the converted network that an earlier run kept, or None."""
        kept = self._memory.load_file(self.spec.folder_name, _NETWORK_FILE) if self._memory else None
        if kept is None:
            return None
        try:
            return self._openvino_engine(kept)
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, RuntimeError) as error:
            self._note(f"the converted network in the store is damaged ({error}); it is made again")
            return None

    def _new_engine(self) -> Any:
        self._checked_network()
        if self._converted is None:
            return self._tensorflow_engine()
        return self._openvino_engine(self._converted)

    def _openvino_engine(self, data: bytes) -> Any:
        from featcache.bases.openvino import OpenVINOEngine

        return OpenVINOEngine(data, self.spec, self.settings.batch_size, self._possible_precision())

    def _possible_precision(self) -> str:
        if self.spec.precision == "f32" or has_bf16():
            return self.spec.precision
        if self._required is None:
            raise BaseNetworkError(
                "base.precision = 'bf16' needs a processor with AMX or AVX512-BF16, which this one has not; "
                "use --precision f32 or auto"
            )
        self._note("the model was trained on bf16 features; this processor has no bf16: its base runs in f32")
        return "f32"

    def _tensorflow_engine(self) -> Any:
        from featcache.bases.tensorflow import TensorFlowEngine

        return TensorFlowEngine(self._checked_network(), self.settings.batch_size)

    def keras_network(self) -> Any:
        """Build the network and return it as a `featcache.bases.sources.Network`, without converting it.

        Raises
        ------
        ModelError
            It is no longer the one that a model was trained on.
        BaseNetworkError, WeightsError
            It cannot be built.
        """
        return self._checked(self._built)

    def _checked_network(self) -> Any:
        """Return the network, if it is what was remembered or what a model was trained on."""
        return self._checked(self._network)

    def _checked(self, network: Any) -> Any:
        if network.spec.fingerprint == self.spec.fingerprint:
            return network
        now, then = network.spec.folder_name, self.spec.folder_name
        if self._required is None:
            raise ModelError(
                f"{self.settings.name} built now is {now} and was remembered as {then}; that is corrected "
                "now: run again"
            )
        raise ModelError(
            f"the model was trained on {then}, but its base is now {now}: the file of its weights has "
            "changed, or another version of Keras gives other weights. Bring the old file back, or train the "
            "head again"
        )

    @property
    def parallel(self) -> int:
        """How many threads may call `features` at once."""
        return cores()

    def features(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """Return the features (n, ...) of pixels (n, height, width, 3), n up to ``settings.batch_size``.

        Raises
        ------
        FeaturesError
            A value is no finite number, or does not fit the stored type.
        """
        self.prepare()
        return stored(self.engine(pixels), self.spec.dtype)


def stored(features: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """Return features in the type in which they are stored.

    Raises
    ------
    FeaturesError
        A value is no finite number, or larger than the type can hold.
    """
    largest = float(np.abs(features).max(initial=0.0))
    if not np.isfinite(largest):
        raise FeaturesError(
            "the base gave values that are no finite numbers; its weights may be damaged, or "
            "base.preprocessing is not what they were trained with"
        )
    limit = float(np.finfo(dtype).max)
    if largest > limit:
        raise FeaturesError(
            f"the base gave a value of {largest:g}, and {dtype} holds at most {limit:g}; use --dtype float32"
        )
    return features.astype(dtype, copy=False)
