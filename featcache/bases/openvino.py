"""Runs a base with OpenVINO, and converts it from Keras once.

The converted network is one file: a zip archive of OpenVINO's own two, ``model.xml`` and ``model.bin``.
Preprocessing and pooling are inside; it takes uint8 pixels.
"""

from __future__ import annotations

import ctypes
import io
import os
import queue
import struct
import tempfile
import weakref
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache import processor
from featcache.bases.contract import Network
from featcache.bases.spec import BaseSpec
from featcache.bases.tensorflow import padded
from featcache.errors import BaseNetworkError
from featcache.runtime import tensorflow

# Two correct f32 implementations differ by a hundredth of this; a wrong conversion by far more.
_TOLERANCE = 1e-3
_XML, _WEIGHTS = "model.xml", "model.bin"


def convert(network: Network) -> bytes:
    """Convert the network to OpenVINO and compare both on random pixels.

    Raises
    ------
    BaseNetworkError
        OpenVINO cannot convert it, or the converted one gives other features.
    """
    import openvino

    tf = tensorflow()
    height, width = network.spec.image_size
    traced = tf.function(lambda pixels: network.model(pixels, training=False)).get_concrete_function(
        tf.TensorSpec((None, height, width, 3), tf.uint8)
    )
    try:
        # Without the name, tensors that only a custom gradient (swish) reads would become further outputs.
        data = _as_bytes(openvino.convert_model(traced, output=[traced.outputs[0].name]))
        _compare(network, data)
    except (RuntimeError, ValueError, TypeError, KeyError, NotImplementedError) as error:
        # raised by OpenVINO's front end for an unknown operation
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise BaseNetworkError(f"OpenVINO cannot convert {network.spec.name}: {reason}") from error
    return data


def _as_bytes(model: Any) -> bytes:
    import openvino

    packed = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(packed, "w") as archive:
        openvino.save_model(model, Path(folder) / _XML, compress_to_fp16=False)
        for name in (_XML, _WEIGHTS):
            # a fixed date: the same network gives the same bytes
            archive.writestr(zipfile.ZipInfo(name), (Path(folder) / name).read_bytes())
    return packed.getvalue()


def unpack(data: bytes) -> tuple[bytes, bytes]:
    """Return description and weights of a converted network.

    Raises
    ------
    ValueError
        It is not an archive of exactly these two, uncompressed and whole.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {one.filename: one for one in archive.infolist()}
            if set(members) != {_XML, _WEIGHTS} or len(members) != len(archive.infolist()):
                raise ValueError(f"it holds {', '.join(sorted(members)) or 'nothing'}")
            # nothing is compressed: no member is larger than the archive
            if any(
                one.compress_type != zipfile.ZIP_STORED or one.file_size > len(data)
                for one in members.values()
            ):
                raise ValueError("its members are not stored uncompressed")
            return archive.read(_XML), archive.read(_WEIGHTS)
    except (zipfile.BadZipFile, EOFError, KeyError, RuntimeError, NotImplementedError, struct.error) as error:
        raise ValueError(f"it is not a whole archive: {error}") from None


def _compare(network: Network, data: bytes) -> None:
    height, width = network.spec.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
    expected = np.asarray(network.model(pixels, training=False))
    got = OpenVINOEngine(data, network.spec, len(pixels), "f32")(pixels)
    error = np.linalg.norm(got - expected) / max(float(np.linalg.norm(expected)), 1e-30)
    if not error <= _TOLERANCE:
        raise ValueError(f"its features differ from TensorFlow's by {error:.1e} of their size")


class OpenVINOEngine:
    """A converted base, compiled for this machine and batches of one size.

    It may be called from any number of threads at once: as many as there are cores run, the others wait.
    Smaller batches are padded, so that a row's features do not depend on the size of its batch.

    Parameters
    ----------
    data : bytes
        What `convert` returned.
    spec : BaseSpec
    batch_size : int
    precision : {"f32", "bf16"}
        Always said to OpenVINO, which otherwise computes in bf16 where the processor can.

    Raises
    ------
    ValueError, RuntimeError
        `data` is not a converted network of this spec, or not one that this version of OpenVINO reads.

    Attributes
    ----------
    lost : bool
        True in a process that was forked after the engine was made: its threads do not exist there.
    """

    name = "openvino"
    lost = False

    def __init__(self, data: bytes, spec: BaseSpec, batch_size: int, precision: str) -> None:
        import openvino

        core = openvino.Core()
        model = core.read_model(*unpack(data))
        model.reshape([batch_size, *spec.image_size, 3])
        # Pinned inference threads wait for their own core while another thread decodes on it.
        wanted = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": precision,
            "ENABLE_CPU_PINNING": False,
        }
        self._compiled = core.compile_model(model, "CPU", wanted)
        _check_features(self._compiled, (batch_size, *spec.feature_shape))
        self.precision = precision
        self._batch_size = batch_size
        # A request keeps the memory of all layers, so there are no more of them than can run at once.
        self._requests: queue.LifoQueue[Any] = queue.LifoQueue()
        for _ in range(processor.cores()):
            self._requests.put(None)
        _ENGINES.add(self)
        # Every inference calls this, and the first call of a process initialises a static object in C++ while
        # it releases the GIL: two first calls at once deadlock.
        openvino.Type.u8.to_dtype()

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features (n, ...) of pixels (n, height, width, 3), for n up to the batch size."""
        count = len(pixels)
        if count < self._batch_size:
            pixels = padded(pixels, self._batch_size)
        request = self._requests.get()
        try:
            request = request or self._compiled.create_infer_request()
            result = request.infer({0: pixels}, share_inputs=True)[0]
            return np.array(result[:count], np.float32)
        finally:
            self._requests.put(request)


def _check_features(compiled: Any, expected: tuple[int, ...]) -> None:
    found = tuple(compiled.output(0).shape)
    if found != expected:
        raise ValueError(f"it gives features of shape {found[1:]}, not {expected[1:]}")


_ENGINES: weakref.WeakSet[OpenVINOEngine] = weakref.WeakSet()


def _leave_to_the_parent() -> None:
    """Mark the engines of the parent process, and never destroy them here.

    A forked process has the engines' memory and not their threads. Waiting for these, as using or destroying
    an engine does, hangs or aborts the process.
    """
    for engine in _ENGINES:
        engine.lost = True
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_leave_to_the_parent)
