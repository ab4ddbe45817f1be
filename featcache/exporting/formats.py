"""Writes a network as a file: one function per format."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.bases.private import with_constants
from featcache.runtime import tensorflow, without_noise

LABELS_FILE = "labels.txt"
QUANTIZE = ("none", "float16", "int8")
_OPSET = 17  # of ONNX: read by ONNX Runtime 1.12 (2022) and later


@dataclass(frozen=True)
class Exportable:
    """A classifier to write: the network, its classes and how to quantize it.

    Attributes
    ----------
    keras : keras.Model
        From uint8 pixels (n, height, width, 3) to probabilities (n, classes), or a dict of outputs by name.
    name : str
        Of the file, without its suffix.
    classes : tuple of str
    quantize : {"none", "float16", "int8"}
        Of TensorFlow Lite.
    sample : ndarray of uint8, shape (n, height, width, 3), optional
        Photos from which int8's ranges are calibrated.
    """

    keras: Any
    name: str
    classes: tuple[str, ...]
    quantize: str = "none"
    sample: NDArray[np.uint8] | None = None

    @property
    def labels(self) -> str:
        """The class names as a text, one a line."""
        return "".join(f"{name}\n" for name in self.classes)

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs, in the order in which TensorFlow lists them."""
        given = self.keras.output
        return sorted(given) if isinstance(given, dict) else ["probabilities"]

    def function(self, batch: int | None = None) -> Any:
        """Return the network as a function of TensorFlow, from ``pixels`` to a dict of `outputs`."""
        shape = (batch, *self.keras.input_shape[1:])

        def classify(pixels: Any) -> dict[str, Any]:
            found = self.keras(pixels, training=False)
            return found if isinstance(found, dict) else {"probabilities": found}

        tf = tensorflow()
        return tf.function(classify, input_signature=[tf.TensorSpec(shape, tf.uint8, name="pixels")])


def write_keras(network: Exportable, folder: Path) -> Path:
    """Write a ``.keras`` archive with ``labels.txt`` as an additional member."""
    path = folder / f"{network.name}.keras"
    network.keras.save(path)
    _add_labels(network, path)
    return path


def write_saved_model(network: Exportable, folder: Path) -> Path:
    """Write TensorFlow's folder with the signature ``serving_default``; names lie in ``assets.extra``."""
    tf = tensorflow()
    module = tf.Module()
    # only the weights: with the Keras model itself every layer of it would be traced and written, too
    module.weights, module.classify = network.keras.weights, network.function()
    with without_noise():
        tf.saved_model.save(module, str(folder), signatures=module.classify.get_concrete_function())
    extra = folder / "assets.extra"
    extra.mkdir()
    (extra / LABELS_FILE).write_text(network.labels, encoding="utf-8")
    return folder


def write_tflite(network: Exportable, folder: Path) -> Path:
    """Write a file for TensorFlow Lite, now LiteRT, that takes one photo at a time.

    Delegates for phones' processors want fixed shapes. Pixels stay uint8 and probabilities float32 also with
    int8 inside. The names are in a zip archive appended to the file, where TensorFlow Lite's metadata
    keeps associated files; interpreters ignore it.
    """
    tf = tensorflow()
    with tempfile.TemporaryDirectory() as saved, without_noise(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of statistics that float inputs would need
        # gradients of one's own (swish) cannot be saved of what has constants, and nobody trains this
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        signature = _with_constants(network, batch=1).get_concrete_function()
        tf.saved_model.save(tf.Module(), saved, signature, options)
        converter = tf.lite.TFLiteConverter.from_saved_model(saved)
        if network.quantize != "none":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if network.quantize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        elif network.quantize == "int8":
            converter.representative_dataset = lambda: _one_by_one(network.sample)
        data = converter.convert()
    path = folder / f"{network.name}.tflite"
    path.write_bytes(data)
    _add_labels(network, path)
    return path


def _with_constants(network: Exportable, batch: int | None = None) -> Any:
    """Return the function with its weights in it.

    The converter to TensorFlow Lite loses variables, and that to ONNX takes what else is captured, such as
    the means that preprocessing subtracts, for further inputs.
    """
    tf = tensorflow()
    function = network.function(batch)
    frozen = with_constants(function.get_concrete_function())

    def classify(pixels: Any) -> dict[str, Any]:
        # frozen, the outputs have lost their names
        return dict(zip(network.outputs, frozen(pixels), strict=True))

    return tf.function(classify, input_signature=function.input_signature)


def _one_by_one(pixels: Any) -> Iterator[list[NDArray[np.uint8]]]:
    yield from ([pixels[place : place + 1]] for place in range(len(pixels)))


def write_onnx(network: Exportable, folder: Path) -> Path:
    """Write a file for ONNX Runtime and its like; the names are the model's property ``classes``."""
    tensorflow()  # before tf2onnx imports it in its own way
    import onnx
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    function = _with_constants(network)
    with without_noise():
        model, _ = tf2onnx.convert.from_function(
            function, input_signature=function.input_signature, opset=_OPSET
        )
    onnx.helper.set_model_props(model, {"classes": json.dumps(network.classes)})
    onnx.checker.check_model(model)
    path = folder / f"{network.name}.onnx"
    onnx.save_model(model, path)
    return path


def write_openvino(network: Exportable, folder: Path) -> Path:
    """Write OpenVINO's two files; the names are in its runtime information ``featcache/classes``."""
    import openvino

    traced = network.function().get_concrete_function()
    # The outputs are named: what only a custom gradient (swish) reads would count as further outputs.
    model = openvino.convert_model(traced, output=[one.name for one in traced.outputs])
    for output, name in zip(model.outputs, network.outputs, strict=True):
        output.set_names({name})
    model.set_rt_info(json.dumps(network.classes), ["featcache", "classes"])
    path = folder / f"{network.name}.xml"
    openvino.save_model(model, path, compress_to_fp16=False)
    return path


def _add_labels(network: Exportable, path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(LABELS_FILE, network.labels)


WRITERS: dict[str, Callable[[Exportable, Path], Path]] = {
    "keras": write_keras,
    "saved_model": write_saved_model,
    "tflite": write_tflite,
    "onnx": write_onnx,
    "openvino": write_openvino,
}
