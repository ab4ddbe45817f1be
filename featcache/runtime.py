"""The one place where TensorFlow and Keras are imported, late and quietly."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

# Said on standard error by every import on a machine without a GPU, whatever the log level.
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
# Said by TensorFlow Lite's converter and interpreter, whatever is converted or run.
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
    """Import TensorFlow with its start-up messages off and return the module.

    It takes several seconds, so nothing calls this before it has work for TensorFlow.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with without_noise():
        import tensorflow as tf

        tf.config.list_physical_devices()  # looks for a GPU now; otherwise the first op does, and complains
    return tf


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


@contextmanager
def without_noise() -> Iterator[None]:
    """Hold back what is written to standard error's file descriptor; pass on all but the known noise.

    The lines come from C++ static initializers: Python's ``sys.stderr`` never sees them.
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
