"""A base as others see it: its facts at once where they are known, its network only when pixels come."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featcache.bases.spec import BaseSpec, check_settings, question
from featcache.errors import ModelError
from featcache.recipe import BaseSettings


class Memory(Protocol):
    """Where facts about bases are kept between runs; `featcache.store.shelf.Store` is one."""

    def recall(self, question: str) -> dict[str, Any] | None:
        """Return what is known under this key."""

    def remember(self, question: str, answer: dict[str, Any]) -> None:
        """Keep facts under this key."""


class Base:
    """A frozen network from pixels to features.

    Parameters
    ----------
    settings : BaseSettings
    memory : Memory, optional
        Asked for the facts before the network is built, and told them after.

    Raises
    ------
    BaseNetworkError, WeightsError
        What `check_settings` finds; when the network is built, what `build_network` finds.
    """

    def __init__(self, settings: BaseSettings, memory: Memory | None = None) -> None:
        check_settings(settings)
        self.settings = settings
        self._memory = memory
        self._question = question(settings)

    @property
    def known_spec(self) -> BaseSpec | None:
        """The facts, if they are known without building the network."""
        facts = self._memory.recall(self._question) if self._memory else None
        return BaseSpec.from_json(facts) if facts else None

    @cached_property
    def spec(self) -> BaseSpec:
        """The facts; the network is built if they are not known."""
        known = self.known_spec
        if known is None:
            known = self._network.spec
        return known

    @cached_property
    def _network(self) -> Any:
        from featcache.bases.networks import build_network

        network = build_network(self.settings)
        if self._memory:
            self._memory.remember(self._question, network.spec.to_json())
        return network

    @cached_property
    def _engine(self) -> Any:
        from featcache.bases.tensorflow import TensorFlowEngine

        if self._network.spec.fingerprint != self.spec.fingerprint:
            raise ModelError(
                f"{self.settings.name} built now differs from what was remembered of it; "
                "that is corrected now: run again"
            )
        return TensorFlowEngine(self._network, self.settings.batch_size)

    def features(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """Return the features (n, ...) of pixels (n, height, width, 3), n up to ``settings.batch_size``."""
        return np.asarray(self._engine(pixels), self.spec.dtype)
