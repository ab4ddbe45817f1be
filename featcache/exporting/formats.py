"""Writes a network as a file of one format: a function for each."""

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

from featcache.runtime import tensorflow, without_noise

LABELS_FILE = "labels.txt"
QUANTIZE = ("none", "float16", "int8")
_OPSET = 17  # of ONNX: read by ONNX Runtime 1.12 (2022) and later


@dataclass(frozen=True)
class Order:
    """What is to be written.

    Attributes
    ----------
    network : keras.Model
        From uint8 pixels (n, height, width, 3) to probabilities (n, classes).
    name : str
        Of the file, without its end.
    classes : tuple of str
    quantize : {"none", "float16", "int8"}
        Of TensorFlow Lite.
    sample : ndarray of uint8, shape (n, height, width, 3), optional
        Photos whose activations int8's ranges follow.
    """

    network: Any
    name: str
    classes: tuple[str, ...]
    quantize: str = "none"
    sample: NDArray[np.uint8] | None = None

    @property
    def labels(self) -> str:
        """The class names as a text, one a line."""
        return "".join(f"{name}\n" for name in self.classes)

    def function(self, batch: int | None = None) -> Any:
        """Return the network as a function of TensorFlow, from ``pixels`` to ``probabilities``."""
        shape = (batch, *self.network.input_shape[1:])

        def classify(pixels: Any) -> dict[str, Any]:
            return {"probabilities": self.network(pixels, training=False)}

        tf = tensorflow()
        return tf.function(classify, input_signature=[tf.TensorSpec(shape, tf.uint8, name="pixels")])


def write_keras(order: Order, folder: Path) -> Path:
    """Write Keras's own archive; ``labels.txt`` is one more member of it."""
    path = folder / f"{order.name}.keras"
    order.network.save(path)
    _add_labels(order, path)
    return path


def write_saved_model(order: Order, folder: Path) -> Path:
    """Write TensorFlow's folder with the signature ``serving_default``; names lie in ``assets.extra``."""
    tf = tensorflow()
    module = tf.Module()
    # only the weights: with the Keras model itself every layer of it would be traced and written, too
    module.weights, module.classify = order.network.weights, order.function()
    with without_noise():
        tf.saved_model.save(module, str(folder), signatures=module.classify.get_concrete_function())
    extra = folder / "assets.extra"
    extra.mkdir()
    (extra / LABELS_FILE).write_text(order.labels, encoding="utf-8")
    return folder


def write_tflite(order: Order, folder: Path) -> Path:
    """Write a file for TensorFlow Lite, now LiteRT, that takes one photo at a time.

    Delegates for phones' processors want fixed shapes. Pixels stay uint8 and probabilities float32 also with
    int8 inside. The names are in a zip archive at the end of the file, where TensorFlow Lite's metadata
    has its associated files; interpreters do not read that far.
    """
    tf = tensorflow()
    with tempfile.TemporaryDirectory() as saved, without_noise(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of statistics that float inputs would need
        # gradients of one's own (swish) cannot be saved of what has constants, and nobody trains this
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        signature = _with_constants(order, batch=1).get_concrete_function()
        tf.saved_model.save(tf.Module(), saved, signature, options)
        converter = tf.lite.TFLiteConverter.from_saved_model(saved)
        if order.quantize != "none":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if order.quantize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        elif order.quantize == "int8":
            converter.representative_dataset = lambda: _one_by_one(order.sample)
        data = converter.convert()
    path = folder / f"{order.name}.tflite"
    path.write_bytes(data)
    _add_labels(order, path)
    return path


def _with_constants(order: Order, batch: int | None = None) -> Any:
    """Return the function with its weights in it.

    The converter to TensorFlow Lite loses variables, and that to ONNX takes what else is captured, such as
    the means that preprocessing subtracts, for further inputs.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    tf = tensorflow()
    function = order.function(batch)
    frozen = convert_variables_to_constants_v2(function.get_concrete_function())

    def classify(pixels: Any) -> dict[str, Any]:
        # frozen, the output has lost its name
        return {"probabilities": frozen(pixels)[0]}

    return tf.function(classify, input_signature=function.input_signature)


def _one_by_one(pixels: Any) -> Iterator[list[NDArray[np.uint8]]]:
    yield from ([pixels[place : place + 1]] for place in range(len(pixels)))


def write_onnx(order: Order, folder: Path) -> Path:
    """Write a file for ONNX Runtime and its like; the names are the model's property ``classes``."""
    tensorflow()  # before tf2onnx imports it in its own way
    import onnx
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    function = _with_constants(order)
    with without_noise():
        model, _ = tf2onnx.convert.from_function(
            function, input_signature=function.input_signature, opset=_OPSET
        )
    onnx.helper.set_model_props(model, {"classes": json.dumps(order.classes)})
    onnx.checker.check_model(model)
    path = folder / f"{order.name}.onnx"
    onnx.save_model(model, path)
    return path


def write_openvino(order: Order, folder: Path) -> Path:
    """Write OpenVINO's two files; the names are in its runtime information ``featcache/classes``."""
    import openvino

    traced = order.function().get_concrete_function()
    # The output is named: what only a custom gradient (swish) reads would count as further outputs.
    model = openvino.convert_model(traced, output=[traced.outputs[0].name])
    model.outputs[0].set_names({"probabilities"})
    model.set_rt_info(json.dumps(order.classes), ["featcache", "classes"])
    path = folder / f"{order.name}.xml"
    openvino.save_model(model, path, compress_to_fp16=False)
    return path


def _add_labels(order: Order, path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(LABELS_FILE, order.labels)


WRITERS: dict[str, Callable[[Order, Path], Path]] = {
    "keras": write_keras,
    "saved_model": write_saved_model,
    "tflite": write_tflite,
    "onnx": write_onnx,
    "openvino": write_openvino,
}
