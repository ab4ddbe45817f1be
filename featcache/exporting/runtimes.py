"""Runs an exported file with its own runtime, as its users will."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ExportError
from featcache.runtime import keras, tensorflow, without_noise

Run = Callable[[NDArray[np.uint8]], NDArray[Any]]
"""Pixels (n, height, width, 3) to an output: probabilities (n, classes), or novelty (n,)."""

PROBABILITIES, NOVELTY = "probabilities", "novelty"

_BATCH = 32


class Runtime(NamedTuple):
    """A runtime of a format.

    Attributes
    ----------
    name : str
        Shown to people.
    package : str
        Its distribution.
    modules : tuple of str
        Packages needed to write and to check a file.
    open : callable
        From a file (or folder), and the name of an output, to a `Run` that computes in f32.
    open_default : callable, optional
        The same without options, where that may compute in another precision.
    """

    name: str
    package: str
    modules: tuple[str, ...]
    open: Callable[..., Run]
    open_default: Callable[[Path], Run] | None = None

    @property
    def version(self) -> str:
        """Of the installed package."""
        return version(self.package)

    def require(self, to: str) -> None:
        """Check that everything needed is installed.

        Raises
        ------
        ExportError
            Names what is missing, and the line that installs it.
        """
        missing = [module for module in self.modules if find_spec(module) is None]
        if missing:
            raise ExportError(
                f"--to {to} needs {' and '.join(missing)}, because no file is kept that {self.name} has not "
                "run; install with: pip install 'featcache[export]'"
            )


def run_in_batches(run: Run, pixels: NDArray[np.uint8], progress: Callable[[int], None]) -> NDArray[Any]:
    """Return the probabilities of all photos, reporting the number done after each batch."""
    found = []
    for start in range(0, len(pixels), _BATCH):
        found.append(run(pixels[start : start + _BATCH]))
        progress(min(start + _BATCH, len(pixels)))
    return np.concatenate(found)


def _keras(path: Path, output: str = PROBABILITIES) -> Run:
    model = keras().saving.load_model(path, compile=False, safe_mode=True)

    def run(pixels: NDArray[np.uint8]) -> NDArray[Any]:
        found = model.predict_on_batch(pixels)
        return np.asarray(found[output] if isinstance(found, dict) else found)

    return run


def _saved_model(path: Path, output: str = PROBABILITIES) -> Run:
    loaded = tensorflow().saved_model.load(str(path))
    signature = loaded.signatures["serving_default"]

    def run(pixels: NDArray[np.uint8]) -> NDArray[Any]:
        found = np.asarray(signature(pixels=tensorflow().constant(pixels))[output])
        # the variables live as long as what was loaded, not as long as its signature
        assert loaded is not None
        return found

    return run


def _tflite(path: Path) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    with without_noise():
        interpreter = Interpreter(str(path))
        interpreter.allocate_tensors()
    (takes,), (gives,) = interpreter.get_input_details(), interpreter.get_output_details()

    def one(photo: NDArray[np.uint8]) -> NDArray[Any]:
        interpreter.set_tensor(takes["index"], photo[None])
        interpreter.invoke()
        return np.array(interpreter.get_tensor(gives["index"])[0])

    return lambda pixels: np.stack([one(photo) for photo in pixels])


def _onnx(path: Path, output: str = PROBABILITIES) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda pixels: np.asarray(session.run([output], {"pixels": pixels})[0])


def _openvino(path: Path, output: str = PROBABILITIES) -> Run:
    return _compiled(path, {"INFERENCE_PRECISION_HINT": "f32"}, output)


def _openvino_default(path: Path) -> Run:
    """Load the file without options: on a processor with bf16 OpenVINO then computes in bf16."""
    return _compiled(path, {})


def _compiled(path: Path, options: dict[str, str], output: str = PROBABILITIES) -> Run:
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", options)
    return lambda pixels: np.array(compiled(pixels)[output])


RUNTIMES = {
    "keras": Runtime("Keras", "keras", ("keras",), _keras),
    "saved_model": Runtime("TensorFlow", "tensorflow", ("tensorflow",), _saved_model),
    "tflite": Runtime("LiteRT", "ai-edge-litert", ("ai_edge_litert",), _tflite),
    "onnx": Runtime("ONNX Runtime", "onnxruntime", ("tf2onnx", "onnxruntime"), _onnx),
    "openvino": Runtime("OpenVINO", "openvino", ("openvino",), _openvino, _openvino_default),
}
