"""Reads and writes heads as ``.keras`` files; refuses files that would make Keras run or read anything else.

One member of the archive, ``featcache.json``, says what Keras does not know (kind of head, labels,
parameters, history). A Dense head is read here without TensorFlow; a user's own model is loaded by Keras,
after a check that its description names nothing but parts of Keras.
"""

from __future__ import annotations

import io
import json
import math
import re
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from featcache.archives import open_archive
from featcache.errors import ModelError
from featcache.heads.dense.head import DenseHead
from featcache.heads.keras_head import KerasHead, output_units
from featcache.heads.labels import labels_from_json, labels_to_json
from featcache.heads.private import forget_uninitialized_variables
from featcache.runtime import keras, tensorflow

MEMBER = "featcache.json"
FORMAT = 1


class _Kind(NamedTuple):
    """What of a kind of head `MEMBER` holds."""

    head: type
    code: dict[str, Any]
    """Parameters that are code and stay out, and what stands for them in a loaded head."""
    fitted: tuple[str, ...]


_KINDS = {
    "dense": _Kind(DenseHead, {}, ("before_", "history_", "best_epoch_", "n_iter_", "n_features_in_")),
    "keras": _Kind(
        KerasHead,
        {"build_fn": None, "callbacks": ()},
        ("history_", "n_iter_", "n_features_in_", "from_logits_"),
    ),
}

# What older files of the same format do not hold, and what stands for it.
_LATER: dict[str, Any] = {"before_": None}

_KERAS_FILES = {"metadata.json", "config.json", "model.weights.h5", MEMBER}
_KERAS_CLASSES = re.compile(
    r"keras\.(Sequential|Functional|DTypePolicy)"
    r"|keras\.src\.models\.functional\.Functional"
    r"|keras\.src\.ops\.\w+\.[A-Z]\w*"
    r"|keras\.(layers|initializers|regularizers|constraints|dtype_policies)\.[A-Z]\w*"
    r"|keras\.(optimizers|optimizers\.schedules|losses|metrics)\.[A-Z]\w*"  # of a compiled model inside
)
_KERAS_FUNCTIONS = re.compile(r"keras\.(activations|losses|metrics)\.\w+")
_PLAIN_VALUES = {"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__"}
# Layers of Keras that hold code, or read other files.
_UNSAFE_LAYERS = {
    "Lambda",
    "TFSMLayer",
    "TorchModuleWrapper",
    "JaxLayer",
    "FlaxLayer",
    "StringLookup",
    "IntegerLookup",
    "TextVectorization",
}
# States of random numbers, which Keras does not store for every layer, are the only others in a model.
_SPARE_VALUES = 1 << 16
_MOST_FEATURES = 1 << 28  # of one image: 1 GiB
_KEEP_YOURSELF = "keep this one with Keras itself: head.to_keras().save(...)"

# What a damaged or foreign archive makes zipfile, json, h5py, NumPy and skops raise.
DAMAGE = (
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
    RecursionError,
    MemoryError,
)


def keras_bytes(head: DenseHead | KerasHead, path: Path) -> bytes:
    """Return a head as the content of a ``.keras`` file; `path` is its name in errors."""
    whole = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():  # Keras saves to a path only
        warnings.filterwarnings("ignore", "The object being serialized includes a `lambda`")
        aside = Path(folder) / path.name
        head.to_keras().save(aside)
        with zipfile.ZipFile(aside) as made, zipfile.ZipFile(whole, "w") as archive:
            for name in made.namelist():
                content = made.read(name)
                archive.writestr(name, _with_plain_loss(content) if name == "config.json" else content)
            archive.writestr(MEMBER, json.dumps(_describe(head), indent=1))
    if isinstance(head, KerasHead):
        _refuse_unreadable(whole.getvalue(), path)
    return whole.getvalue()


def _with_plain_loss(content: bytes) -> bytes:
    """Forget how a model was compiled if that names a loss or a metric of the user's own: it is code."""
    config = json.loads(content)
    if all(map(_is_keras_part, _parts(config.get("compile_config")))):
        return content
    return json.dumps({**config, "compile_config": None}).encode()


def _refuse_unreadable(content: bytes, path: Path) -> None:
    """Read a user's own model back: Keras writes some that neither it nor `load_head` reads."""
    try:
        read_keras(content, path)
    except DAMAGE as error:
        raise ModelError(
            f"{path} could not be read back and is not kept; {_KEEP_YOURSELF}: {error}"
        ) from error


def _describe(head: DenseHead | KerasHead) -> dict[str, Any]:
    """Return what Keras does not keep, as JSON."""
    name, kind = next((name, kind) for name, kind in _KINDS.items() if isinstance(head, kind.head))
    parameters = {key: value for key, value in head.get_params().items() if key not in kind.code}
    if not isinstance(parameters["random_state"], int | np.integer):
        parameters["random_state"] = None  # a RandomState has moved on and would not give this head again
    if isinstance(parameters["class_weight"], dict):  # JSON's keys are strings, labels need not be
        parameters["class_weight"] = {"pairs": list(parameters["class_weight"].items())}
    state = {
        "format": FORMAT,
        "kind": name,
        "parameters": parameters,
        **labels_to_json(head.classes_),
        "features_shape": head.features_shape_,
        "fitted": {name: getattr(head, name) for name in kind.fitted},
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


def read_keras(content: bytes, path: Path) -> DenseHead | KerasHead:
    """Return the head in the content of a ``.keras`` file; raises a ModelError or one of `DAMAGE`."""
    with open_archive(content) as archive:
        if MEMBER not in archive.namelist():
            raise ModelError(f"{path} is a Keras model, but no head of featcache's: {MEMBER} is not in it")
        state = json.loads(archive.read(MEMBER))
        if state["format"] != FORMAT:
            raise ModelError(f"{path} has format {state['format']!r}; this version reads format {FORMAT}")
        head = _rebuild(state, path)
        if isinstance(head, KerasHead):
            _refuse_unsafe(archive, path)
            _refuse_larger(archive, head)
            head.model_ = _load_model(content)
            output_units(head.model_, head.features_shape_, len(head.classes_))
        else:
            units = _dense_units(json.loads(archive.read("config.json")))
            weights = _dense_weights(archive.read("model.weights.h5"), len(units))
            head.coefs_, head.intercepts_ = weights[::2], weights[1::2]
            _refuse_misfit(head, units)
    return head


def _rebuild(state: dict[str, Any], path: Path) -> DenseHead | KerasHead:
    """Return the head without its weights."""
    kind = _KINDS.get(state.get("kind", "dense"))  # the first files named no kind
    if kind is None:
        raise ModelError(
            f"{path} holds a head of kind {state['kind']!r}; this version reads {', '.join(_KINDS)}"
        )
    parameters = state["parameters"] | kind.code
    if isinstance(parameters["class_weight"], dict):
        parameters["class_weight"] = dict(parameters["class_weight"]["pairs"])
    if isinstance(parameters.get("units"), list):
        parameters["units"] = tuple(parameters["units"])
    head: DenseHead | KerasHead = kind.head(**parameters)
    head._validate_params()
    head.classes_ = labels_from_json(state)
    head.features_shape_ = tuple(state["features_shape"])
    for name in kind.fitted:
        setattr(head, name, (_LATER | state["fitted"])[name])
    if "feature_names" in state:
        head.feature_names_in_ = np.array(state["feature_names"], dtype=object)
    return head


def _load_model(content: bytes) -> Any:
    """Return the Keras model of an archive that `_refuse_unsafe` let pass; it is not compiled."""
    with tempfile.TemporaryDirectory() as folder:  # Keras loads from a path only
        aside = Path(folder) / "head.keras"
        aside.write_bytes(content)
        try:
            return keras().saving.load_model(aside, compile=False, safe_mode=True)
        except tensorflow().errors.OpError as error:
            raise ValueError(str(error)) from error


def _refuse_unsafe(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse an archive that would make Keras run or read anything but its own parts."""
    import h5py

    strange = set(archive.namelist()) - _KERAS_FILES
    if strange:
        raise ModelError(
            f"{path} holds {sorted(strange)[0]}, which no head of featcache's has; it is not loaded"
        )
    _refuse_custom(json.loads(archive.read("config.json")), path)
    with h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r") as file:
        _refuse_elsewhere(file)


def _refuse_larger(archive: zipfile.ZipFile, head: KerasHead) -> None:
    """Refuse a description with more weights than are stored: Keras would allocate them before it looks."""
    import h5py

    sizes: list[int] = []

    def add(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            sizes.append(item.size)

    with h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r") as file:
        file.visititems(add)
    declared = _declared_values(json.loads(archive.read("config.json")))
    if declared > sum(sizes) + _SPARE_VALUES:
        raise ValueError(f"its layers have {declared:,} weights, and {sum(sizes):,} are stored")
    if math.prod(head.features_shape_) > _MOST_FEATURES:
        raise ValueError(f"features of shape {head.features_shape_} are not supported")


def _declared_values(config: dict[str, Any]) -> int:
    """Return the number of weights of a model by its description, without allocating any."""
    plain = {**config, "compile_config": None}  # Keras changes what it is given: `config` is read only here
    try:
        with keras().StatelessScope(initialize_variables=False):
            model = keras().saving.deserialize_keras_object(plain, safe_mode=True)
    except tensorflow().errors.OpError as error:
        raise ValueError(str(error)) from error
    finally:
        forget_uninitialized_variables()
    return sum(math.prod(variable.shape) for variable in model.variables)


def _refuse_custom(config: dict[str, Any], path: Path) -> None:
    """Refuse a model that is described by more than Keras's own parts."""
    for part in _parts(config):
        if not _is_keras_part(part):
            raise ModelError(
                f"{path} holds {part['class_name']!r} ({part.get('registered_name') or part.get('module')}), "
                f"which is code or reads other files; featcache keeps only models of Keras's own parts; "
                f"{_KEEP_YOURSELF}"
            )


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    """Yield everything in a model's description that Keras would make an object of."""
    if isinstance(value, dict) and "class_name" in value:
        yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for each in inner:
        yield from _parts(each)


def _is_keras_part(part: dict[str, Any]) -> bool:
    name, module, registered = (part.get(key) for key in ("class_name", "module", "registered_name"))
    if name == "function":
        return bool(_KERAS_FUNCTIONS.fullmatch(f"{module}.{part['config']}")) and registered == part["config"]
    if registered not in {None, name}:  # would be looked up among what the running program registered
        return False
    if module is None:
        return name in _PLAIN_VALUES
    return bool(_KERAS_CLASSES.fullmatch(f"{module}.{name}")) and name not in _UNSAFE_LAYERS


def _dense_units(config: dict[str, Any]) -> list[int]:
    """Return the sizes of the Dense layers in Keras's description of the model, first to last."""
    layers = config["config"]["layers"]
    return [int(layer["config"]["units"]) for layer in layers if layer["class_name"] == "Dense"]


def _dense_weights(content: bytes, layers: int) -> list[NDArray[np.float32]]:
    """Return kernel and bias per Dense layer; Keras numbers them dense, dense_1, … in the model's order."""
    import h5py

    weights = []
    with h5py.File(io.BytesIO(content), "r") as file:
        _refuse_elsewhere(file)
        for number in range(layers):
            group = file[f"layers/dense_{number}/vars" if number else "layers/dense/vars"]
            weights += [np.asarray(group[part], dtype=np.float32) for part in ("0", "1")]
    return weights


def _refuse_elsewhere(file: Any) -> None:
    """Refuse weights that do not stand in this very file: HDF5 links could point to any other."""
    import h5py

    def link_elsewhere(name: str, link: Any) -> str | None:
        return None if isinstance(link, h5py.HardLink) else name

    def stored_elsewhere(name: str, item: Any) -> str | None:
        return name if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual) else None

    if name := file.visititems_links(link_elsewhere):
        raise ValueError(f"the weights {name} are a link to elsewhere")

    def declared_too_large(name: str, item: Any) -> str | None:
        # Keras writes weights without compression: what is declared is there
        return name if isinstance(item, h5py.Dataset) and item.id.get_storage_size() < item.nbytes else None

    if name := file.visititems(stored_elsewhere):
        raise ValueError(f"the weights {name} lie in another file")
    if name := file.visititems(declared_too_large):
        raise ValueError(f"the weights {name} are declared larger than they are")


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
