"""``predictions.npz``: every head's predictions of the rows that it is scored on, with the photos' digests.

Reports, the choice of a head and audits read them instead of loading heads and predicting again. All heads of
a run share the rows: validation, or with folds train and validation, where each row is predicted by a head
that was not trained on it.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import FormatError
from featcache.files import read_regular, write_bytes_whole

FORMAT = 1
"""Raise it when an older version would misread the file; an unknown number is refused."""

MAX_BYTES = 1 << 30
"""Larger files are neither written nor read."""

_DIGEST_BYTES = 32

# NotImplementedError: a changed byte says that zipfile must know another version or compression
_DAMAGE = (
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    RecursionError,
    NotImplementedError,
    struct.error,
    zipfile.BadZipFile,
)


@dataclass(frozen=True, eq=False)
class ScoredRows:
    """The rows that the heads of a run are scored on.

    Attributes
    ----------
    digests : uint8 array of shape (n, 32)
        SHA-256 of the photos' bytes.
    labels : int64 array of shape (n,)
        Positions in the classes.
    folds : int64 array of shape (n,), or None
        With cross-validation, the fold in which a row was held out.
    weights : float64 array of shape (n,), or None
        Sample weights; None if all photos of the data set have weight 1.
    groups : int64 array of shape (n,), or None
        Numbers of the groups, as `featcache.store.split.Split` has them; None if no photo of the data set
        has a group.
    """

    digests: NDArray[np.uint8]
    labels: NDArray[np.int64]
    folds: NDArray[np.int64] | None = None
    weights: NDArray[np.float64] | None = None
    groups: NDArray[np.int64] | None = None

    def equals(self, other: ScoredRows) -> bool:
        """Whether both are the same rows in the same order."""
        names = (one.name for one in fields(self))
        pairs = ((getattr(self, name), getattr(other, name)) for name in names)
        return all(a is b or (a is not None and b is not None and np.array_equal(a, b)) for a, b in pairs)


@dataclass(frozen=True, eq=False)
class HeadPredictions:
    """A head's predictions of the scored rows.

    Attributes
    ----------
    predicted : int64 array of shape (n,)
        Positions in the classes.
    probabilities : float32 array of shape (n, k), or None
        None where the classifier has none.
    model_sha256 : str
        Hash of the ``model.json`` of the model that gave them.
    """

    predicted: NDArray[np.int64]
    probabilities: NDArray[np.float32] | None
    model_sha256: str = ""


@dataclass(frozen=True, eq=False)
class RunPredictions:
    """What ``predictions.npz`` holds.

    Attributes
    ----------
    data : str
        Fingerprint of the data that the heads were trained on.
    classes : tuple of str
    rows : ScoredRows
    heads : dict of str to HeadPredictions
    """

    data: str
    classes: tuple[str, ...]
    rows: ScoredRows
    heads: Mapping[str, HeadPredictions] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Size of all arrays."""
        return sum(array.nbytes for array in _arrays(self).values())


def write_predictions(path: Path, predictions: RunPredictions) -> None:
    """Write the file as a whole.

    Raises
    ------
    StoreError
        No room or no permission.
    """
    heads = [{"name": name, "model_sha256": one.model_sha256} for name, one in predictions.heads.items()]
    facts = {
        "format": FORMAT,
        "data": predictions.data,
        "classes": list(predictions.classes),
        "heads": heads,
    }
    data = io.BytesIO()
    arrays = {"facts": np.frombuffer(json.dumps(facts).encode(), np.uint8), **_arrays(predictions)}
    np.savez(data, **arrays)  # type: ignore[arg-type]
    write_bytes_whole(path, data.getvalue())


def _arrays(predictions: RunPredictions) -> dict[str, NDArray[Any]]:
    rows = predictions.rows
    arrays: dict[str, NDArray[Any]] = {"digests": rows.digests, "labels": rows.labels.astype(np.int64)}
    if rows.folds is not None:
        arrays["folds"] = rows.folds.astype(np.int64)
    if rows.weights is not None:
        arrays["weights"] = rows.weights.astype(np.float64)
    if rows.groups is not None:
        arrays["groups"] = rows.groups.astype(np.int64)
    for number, one in enumerate(predictions.heads.values()):
        arrays[f"predicted_{number}"] = one.predicted.astype(np.int64)
        if one.probabilities is not None:
            # rows first, as the reader takes them: some classifiers give columns first
            arrays[f"probabilities_{number}"] = np.ascontiguousarray(one.probabilities, np.float32)
    return arrays


def load_predictions(path: Path) -> RunPredictions:
    """Read and validate the file.

    Raises
    ------
    OSError
        It is missing, cannot be read, or is no regular file of at most `MAX_BYTES`.
    FormatError
        It is damaged, or of a newer format.
    """
    data = read_regular(path, MAX_BYTES)
    try:
        return _parsed(_members(data))
    except _DAMAGE as error:
        raise FormatError(f"{path} is damaged ({error}); train the heads again") from None


def _members(data: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays of an uncompressed npz; no size is believed that the file does not have."""
    arrays = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 0x1:
                raise ValueError(f"{member.filename} is compressed or encrypted")
            arrays[member.filename.removesuffix(".npy")] = _array(archive.read(member))
    return arrays


def _array(data: bytes) -> NDArray[Any]:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"an array of version {version}")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    rest = data[file.tell() :]
    if dtype.hasobject or fortran or dtype.itemsize * int(np.prod(shape, dtype=object)) != len(rest):
        raise ValueError(f"an array of shape {shape} and type {dtype} in {len(rest):,} bytes")
    return np.frombuffer(rest, dtype).reshape(shape)


def _parsed(arrays: dict[str, NDArray[Any]]) -> RunPredictions:
    facts = json.loads(arrays["facts"].tobytes())
    if facts["format"] != FORMAT:
        raise ValueError(f"format {facts['format']!r}; this version reads format {FORMAT}")
    classes = tuple(map(str, facts["classes"]))
    labels = _checked(arrays["labels"], np.int64, (len(arrays["labels"]),), len(classes))
    n = len(labels)
    folds = _checked(arrays["folds"], np.int64, (n,), n) if "folds" in arrays else None
    weights = _checked(arrays["weights"], np.float64, (n,)) if "weights" in arrays else None
    if weights is not None and not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError("weights that are not finite numbers of 0 or more")
    groups = _checked(arrays["groups"], np.int64, (n,)) if "groups" in arrays else None
    digests = _checked(arrays["digests"], np.uint8, (n, _DIGEST_BYTES))
    rows = ScoredRows(digests, labels, folds, weights, groups)
    heads = {}
    for number, head in enumerate(facts["heads"]):
        predicted = _checked(arrays[f"predicted_{number}"], np.int64, (n,), len(classes))
        probabilities = arrays.get(f"probabilities_{number}")
        if probabilities is not None:
            _checked(probabilities, np.float32, (n, len(classes)))
            if not ((probabilities >= 0) & (probabilities <= 1)).all():
                raise ValueError(f"probabilities of {head['name']!r} are not between 0 and 1")
        heads[str(head["name"])] = HeadPredictions(predicted, probabilities, str(head["model_sha256"]))
    return RunPredictions(str(facts["data"]), classes, rows, heads)


def _checked(
    array: NDArray[Any], dtype: Any, shape: tuple[int, ...], below: int | None = None
) -> NDArray[Any]:
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"an array of shape {array.shape} and type {array.dtype} in place of {shape}")
    if below is not None and array.size and not 0 <= array.min() <= array.max() < below:
        raise ValueError(f"numbers from {array.min()} to {array.max()} where 0 to {below - 1} are allowed")
    return array
