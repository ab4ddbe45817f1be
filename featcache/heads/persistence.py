"""Keep fitted heads in files that hold data and no code: ``.keras`` for Dense heads, ``.skops`` for the rest.

A ``.keras`` file is Keras's own format and opens in Keras; one more member of the same archive,
``featcache.json``, says what Keras does not know (labels, parameters, history). It is read here
without TensorFlow.
"""

from __future__ import annotations

import io
import json
import pkgutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ModelError
from featcache.files import write_bytes_whole
from featcache.heads.dense import DenseHead

MEMBER = "featcache.json"
FORMAT = 1

_FITTED = ("history_", "best_epoch_", "n_iter_", "n_features_in_")
_PICKLES = {".pickle", ".pkl", ".joblib"}
_TRUSTED_PACKAGES = {"sklearn", "numpy", "scipy"}
_TRUSTED_TYPES = {"featcache.heads.pooling.Pool"}
# What a damaged or foreign archive makes zipfile, json, h5py, NumPy and skops raise.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    KeyError,
    IndexError,
    ValueError,
    TypeError,
    AttributeError,
    ImportError,
    NotImplementedError,
    RuntimeError,
)


def save_head(head: Any, folder: Path) -> str:
    """Write a fitted head into `folder`, aside first and then in one step, and return the file's name.

    Parameters
    ----------
    head : DenseHead or scikit-learn classifier
    folder : Path
        Made if it is not there.

    Returns
    -------
    str
        ``head.keras`` for a `DenseHead` (this needs TensorFlow), else ``head.skops``.

    Raises
    ------
    ModelError
        The head holds what `load_head` would refuse.
    StoreError
        The file cannot be written.
    """
    name, content = (
        ("head.keras", _keras_bytes) if isinstance(head, DenseHead) else ("head.skops", _skops_bytes)
    )
    path = Path(folder) / name
    write_bytes_whole(path, content(head, path))
    return name


def load_head(path: Path) -> Any:
    """Read a head that `save_head` wrote, never importing TensorFlow and never running a file's code.

    Raises
    ------
    ModelError
        The file is missing, damaged, of another kind, or holds a type that is not trusted.
        Trusted are classes of scikit-learn, NumPy and SciPy, and featcache's `Pool`.
    """
    path = Path(path)
    if path.suffix in _PICKLES:
        raise ModelError(
            f"{path} is a pickle, which can run any code when it is loaded; featcache never loads one. "
            "Train the head again, or save it as .skops"
        )
    if path.suffix not in _READERS:
        raise ModelError(f"{path} is no head: a head is a .keras or a .skops file")
    try:
        return _READERS[path.suffix](path.read_bytes(), path)
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist") from None
    except _DAMAGE as error:
        raise ModelError(f"{path} is damaged or not a head of featcache's: {error}") from error


def _skops_bytes(head: Any, path: Path) -> bytes:
    import skops.io

    content: bytes = skops.io.dumps(head)
    _refuse_untrusted(content, path)
    return content


def _read_skops(content: bytes, path: Path) -> Any:
    import skops.io
    from sklearn.base import BaseEstimator, is_classifier

    head = skops.io.loads(content, trusted=_refuse_untrusted(content, path))
    if not (isinstance(head, BaseEstimator) and is_classifier(head)):
        raise ModelError(f"{path} holds a {type(head).__name__}, which is not a classifier")
    return head


def _refuse_untrusted(content: bytes, path: Path) -> list[str]:
    """Return the types in `content` that skops asks about, all of them trusted."""
    import skops.io

    asked = skops.io.get_untrusted_types(data=content)
    for name in asked:
        if not _is_trusted(name):
            raise ModelError(f"{path} holds the type {name}, which is not trusted; it is not loaded")
    return list(asked)


def _is_trusted(name: str) -> bool:
    """Say whether `name` is a class of a trusted package; functions are not, they could be made to run."""
    if name in _TRUSTED_TYPES:
        return True
    if name.partition(".")[0] not in _TRUSTED_PACKAGES:
        return False
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError):
        return False
    # "numpy.os._Environ" leads out of NumPy
    return isinstance(found, type) and found.__module__.partition(".")[0] in _TRUSTED_PACKAGES


def _keras_bytes(head: DenseHead, path: Path) -> bytes:
    with tempfile.TemporaryDirectory() as folder:  # Keras saves to a path only
        aside = Path(folder) / path.name
        head.to_keras().save(aside)
        with zipfile.ZipFile(aside, "a") as archive:
            archive.writestr(MEMBER, json.dumps(_describe(head), indent=1))
        return aside.read_bytes()


def _describe(head: DenseHead) -> dict[str, Any]:
    """Return what Keras does not keep, as JSON."""
    parameters = head.get_params()
    if not isinstance(parameters["random_state"], int | np.integer):
        parameters["random_state"] = None  # a RandomState has moved on and would not give this head again
    if isinstance(parameters["class_weight"], dict):  # JSON's keys are strings, labels need not be
        parameters["class_weight"] = {"pairs": list(parameters["class_weight"].items())}
    state = {
        "format": FORMAT,
        "parameters": parameters,
        "classes": head.classes_.tolist(),
        "classes_dtype": head.classes_.dtype.str,
        "features_shape": head.features_shape_,
        "fitted": {name: getattr(head, name) for name in _FITTED},
    }
    names = getattr(head, "feature_names_in_", None)
    if names is not None:
        state["feature_names"] = list(names)
    plain: dict[str, Any] = json.loads(json.dumps(state, default=_plain))
    return plain


def _plain(value: Any) -> Any:
    """Turn NumPy's numbers into Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _read_keras(content: bytes, path: Path) -> DenseHead:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if MEMBER not in archive.namelist():
            raise ModelError(f"{path} is a Keras model, but no head of featcache's: {MEMBER} is not in it")
        state = json.loads(archive.read(MEMBER))
        if state["format"] != FORMAT:
            raise ModelError(f"{path} has format {state['format']!r}; this version reads format {FORMAT}")
        units = _dense_units(json.loads(archive.read("config.json")))
        weights = _dense_weights(archive.read("model.weights.h5"), len(units))
    head = _rebuild(state)
    head.coefs_, head.intercepts_ = weights[::2], weights[1::2]
    _refuse_misfit(head, units)
    return head


def _rebuild(state: dict[str, Any]) -> DenseHead:
    parameters = state["parameters"]
    if isinstance(parameters["class_weight"], dict):
        parameters["class_weight"] = dict(parameters["class_weight"]["pairs"])
    parameters["units"] = (
        parameters["units"] if isinstance(parameters["units"], int) else tuple(parameters["units"])
    )
    head = DenseHead(**parameters)
    head._validate_params()
    head.classes_ = np.array(state["classes"], dtype=np.dtype(state["classes_dtype"]))
    head.features_shape_ = tuple(state["features_shape"])
    for name in _FITTED:
        setattr(head, name, state["fitted"][name])
    if "feature_names" in state:
        head.feature_names_in_ = np.array(state["feature_names"], dtype=object)
    return head


def _dense_units(config: dict[str, Any]) -> list[int]:
    """Return the sizes of the Dense layers in Keras's description of the model, first to last."""
    layers = config["config"]["layers"]
    return [int(layer["config"]["units"]) for layer in layers if layer["class_name"] == "Dense"]


def _dense_weights(content: bytes, layers: int) -> list[NDArray[np.float32]]:
    """Return kernel and bias per Dense layer; Keras numbers them dense, dense_1, … in the model's order."""
    import h5py

    weights = []
    with h5py.File(io.BytesIO(content), "r") as file:
        for number in range(layers):
            name = f"layers/dense_{number}/vars" if number else "layers/dense/vars"
            weights += [_inside(file, f"{name}/{part}") for part in (0, 1)]
    return weights


def _inside(file: Any, name: str) -> NDArray[np.float32]:
    """Read a data set that stands in this very file: HDF5 links could point to any other."""
    import h5py

    parts = name.split("/")
    for depth in range(1, len(parts) + 1):
        if not isinstance(file.get("/".join(parts[:depth]), getlink=True), h5py.HardLink):
            raise ValueError(f"the weights {name} are a link to elsewhere or missing")
    dataset = file[name]
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"the weights {name} lie in another file")
    return np.asarray(dataset, dtype=np.float32)


def _refuse_misfit(head: DenseHead, units: list[int]) -> None:
    """Refuse weights whose shapes are not those of the parameters."""
    hidden = [head.units] if isinstance(head.units, int) else list(head.units)
    outputs = 1 if len(head.classes_) == 2 else len(head.classes_)
    shape = head.features_shape_
    sizes = [int(np.prod(shape)) if head.pooling == "flatten" else shape[-1], *hidden, outputs]
    kernels = [kernel.shape for kernel in head.coefs_]
    biases = [bias.shape for bias in head.intercepts_]
    wanted = list(pairwise(sizes))
    if kernels != wanted or biases != [(out,) for out in sizes[1:]] or units != sizes[1:]:
        raise ValueError(f"the weights have shapes {kernels}; the parameters say {wanted}")


_READERS: dict[str, Callable[[bytes, Path], Any]] = {".keras": _read_keras, ".skops": _read_skops}
