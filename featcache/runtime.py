"""Imports TensorFlow and Keras lazily and without their start-up messages; nothing else imports them."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from featcache.errors import BaseNetworkError

# Printed to standard error by every import on a machine without a GPU, whatever the log level.
_NOISE = (
    b"absl::InitializeLog",
    b"cudart_stub",
    b"cuda_dnn",
    b"cuda_fft",
    b"cuda_blas",
    b"cuda_platform",
    b"cpu_feature_guard",
    b"oneDNN",
)
# Printed by TensorFlow Lite's converter and interpreter for every model.
_LITE_NOISE = (
    b"fully_quantize:",
    b"unsaved custom gradients",
    b"TensorFlow Lite XNNPACK delegate",
    b"tf_tfl_flatbuffer_helpers",
    b"mlir_graph_optimization_pass",
    b"reader.cc",
    b"loader.cc",
)


@cache
def tensorflow() -> Any:
    """Import TensorFlow without its start-up messages and return the module.

    The import takes several seconds: call this only where TensorFlow is needed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with without_noise():
        import tensorflow as tf

        tf.config.list_physical_devices()  # looks for a GPU now; otherwise the first op does, and complains
    return tf


_forked_with_tensorflow = False


def _note_fork() -> None:
    global _forked_with_tensorflow
    _forked_with_tensorflow = "tensorflow" in sys.modules


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_note_fork)


def refuse_after_fork() -> None:
    """Refuse to run TensorFlow in a process that was forked after it was imported: it would hang.

    Raises
    ------
    BaseNetworkError
        This is such a process.
    """
    if _forked_with_tensorflow:
        raise BaseNetworkError(
            "TensorFlow does not work in a process that was forked after it was imported; load the model in "
            "the new process (gunicorn: without --preload), or start processes with spawn"
        )


@cache
def keras() -> Any:
    """Import Keras on TensorFlow and return the module.

    Raises
    ------
    ImportError
        Keras is set to another backend.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    tensorflow()
    import keras as module

    if module.backend.backend() != "tensorflow":
        raise ImportError(
            f"Keras is set to the backend {module.backend.backend()!r}; "
            "featcache needs KERAS_BACKEND=tensorflow"
        )
    return module


_POOLING = {"flatten": "Flatten", "avg": "GlobalAveragePooling2D", "max": "GlobalMaxPooling2D"}


def pooling_layer(pooling: str, name: str | None = None) -> Any:
    """Return the Keras layer that turns features (n, h, w, c) into vectors.

    Parameters
    ----------
    pooling : {"none", "flatten", "avg", "max"}
    name : str, optional

    Returns
    -------
    keras.Layer or None
        None for "none".
    """
    return None if pooling == "none" else getattr(keras().layers, _POOLING[pooling])(name=name)


@contextmanager
def without_noise() -> Iterator[None]:
    """Buffer what is written to file descriptor 2 and drop the known start-up messages.

    These come from C++ static initializers: Python's ``sys.stderr`` never sees them.
    """
    try:
        original = os.dup(2)
    except OSError:  # standard error is closed
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(original, 2)
            held.seek(0)
            kept = [line for line in held if not any(word in line for word in (*_NOISE, *_LITE_NOISE))]
            os.write(original, b"".join(kept))
            os.close(original)
