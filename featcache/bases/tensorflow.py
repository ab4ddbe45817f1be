"""Runs a base with TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.bases.contract import Network
from featcache.runtime import refuse_after_fork, tensorflow


class TensorFlowEngine:
    """The base as one compiled function for batches of one size.

    Smaller batches are padded: there is one compiled shape, and a row's features do not depend on the size of
    its batch.

    Parameters
    ----------
    network : Network
    batch_size : int

    Raises
    ------
    BaseNetworkError
        When it is made or called in a process that was forked after TensorFlow was imported.
    """

    name = "tensorflow"
    lost = False

    def __init__(self, network: Network, batch_size: int) -> None:
        refuse_after_fork()
        tf = tensorflow()
        self._constant = tf.constant
        self._batch_size = batch_size
        height, width = network.spec.image_size
        signature = tf.TensorSpec((batch_size, height, width, 3), tf.uint8)
        run = tf.function(lambda pixels: network.model(pixels, training=False))
        self._run: Any = run.get_concrete_function(signature)

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features (n, ...) of pixels (n, height, width, 3), for n up to the batch size."""
        refuse_after_fork()
        count = len(pixels)
        if count < self._batch_size:
            pixels = padded(pixels, self._batch_size)
        return np.asarray(self._run(self._constant(pixels)).numpy()[:count], np.float32)


def padded(pixels: NDArray[np.uint8], batch_size: int) -> NDArray[np.uint8]:
    """Return pixels (n, ...) with black images appended, shape (batch_size, ...)."""
    black = np.zeros((batch_size - len(pixels), *pixels.shape[1:]), np.uint8)
    return np.concatenate([pixels, black])
