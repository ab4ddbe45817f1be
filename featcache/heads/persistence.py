"""Keep fitted heads in files that hold data and no code: ``.keras`` for networks, ``.skops`` for the rest.

A ``.keras`` file is Keras's own format and opens in Keras; one more member of the same archive,
``featcache.json``, says what Keras does not know (kind of head, labels, parameters, history). A Dense
head is read here without TensorFlow; a model of the user's own is loaded by Keras, after a look at what
its description names: parts of Keras itself and nothing else.
"""

from __future__ import annotations

import contextlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from featcache.archives import open_archive
from featcache.errors import ModelError
from featcache.files import read_regular, write_bytes_whole
from featcache.heads.dense.head import DenseHead
from featcache.heads.keras_files import DAMAGE, keras_bytes, read_keras
from featcache.heads.keras_head import KerasHead
from featcache.heads.linear import linear_form, save_linear

_PICKLES = {".pickle", ".pkl", ".joblib"}
_TRUSTED_PACKAGES = {"sklearn", "numpy", "scipy"}
_TRUSTED_TYPES = {
    "featcache.heads.baselines.NearestCentroidHead",
    "featcache.heads.baselines.NearestNeighborsHead",
    "featcache.heads.logistic.LogisticHead",
    "featcache.heads.pooling.Pool",
}


def save_head(head: Any, folder: Path) -> str:
    """Write a fitted head into `folder`, aside first and then in one step, and return the file's name.

    Parameters
    ----------
    head : DenseHead, KerasHead or scikit-learn classifier
        Of a `KerasHead` neither `build_fn` nor `callbacks` are kept, nor a loss or metrics of the user's own.
    folder : Path
        Made if it is not there.

    Returns
    -------
    str
        ``head.keras`` for a `DenseHead` or `KerasHead` (this needs TensorFlow), else ``head.skops``; beside
        a linear one stands its `LinearHead`.

    Raises
    ------
    ModelError
        The head holds what `load_head` would refuse.
    StoreError
        The file cannot be written.
    """
    network = isinstance(head, DenseHead | KerasHead)
    name, content = ("head.keras", keras_bytes) if network else ("head.skops", _skops_bytes)
    path = Path(folder) / name
    write_bytes_whole(path, content(head, path))
    with contextlib.suppress(ModelError):  # most of scikit-learn's classifiers are not linear
        if not network:
            save_linear(linear_form(head), path)
    return name


def load_head(path: Path) -> Any:
    """Read a head that `save_head` wrote, never running a file's code.

    Only a `KerasHead` needs TensorFlow. It comes back without `build_fn` and `callbacks`: it predicts, and
    can be fitted again once ``set_params(build_fn=...)`` has given it the function.

    Raises
    ------
    ModelError
        The file is missing, damaged, of another kind, or holds a type that is not trusted.
        Trusted are classes of scikit-learn, NumPy and SciPy, and featcache's own; in a model of Keras the
        parts of Keras itself, except layers that hold code (``Lambda``) or read other files.
    """
    path = Path(path)
    _check_kind(path)
    try:
        content = read_regular(path)
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from None
    return read_head(content, path)


def read_head(content: bytes, path: Path) -> Any:
    """Read a head as `load_head`, with the same errors, from the content of the file `path`."""
    _check_kind(path)
    try:
        return _READERS[path.suffix](content, path)
    except DAMAGE as error:
        raise ModelError(f"{path} is damaged or not a head of featcache's: {error}") from error


def _check_kind(path: Path) -> None:
    if path.suffix in _PICKLES:
        raise ModelError(
            f"{path} is a pickle, which can run any code when it is loaded; featcache never loads one. "
            "Train the head again, or save it as .skops"
        )
    if path.suffix not in _READERS:
        raise ModelError(f"{path} is no head: a head is a .keras or a .skops file")


def _skops_bytes(head: Any, path: Path) -> bytes:
    import skops.io

    content: bytes = skops.io.dumps(head)
    _refuse_untrusted(content, path)
    return content


def _read_skops(content: bytes, path: Path) -> Any:
    import skops.io
    from sklearn.base import BaseEstimator, is_classifier

    open_archive(content).close()
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


_READERS: dict[str, Callable[[bytes, Path], Any]] = {".keras": read_keras, ".skops": _read_skops}
