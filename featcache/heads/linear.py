"""A linear classifier of scikit-learn as what it is: one product and one sum, with NumPy alone.

So photos are classified without the seconds that importing scikit-learn takes, and the head can become a
Dense layer of a network. Centring, scaling and principal components in front of the classifier are linear
as well and are folded into its weights.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from featcache.archives import DAMAGE, read_arrays
from featcache.errors import ModelError
from featcache.files import read_regular, write_bytes_whole
from featcache.heads.labels import labels_from_json, labels_to_json
from featcache.heads.vectors import POOLINGS, pool, unit_rows

LINEAR_FILE = "linear.npz"
FORMAT = 2
"""1 has no "unit_rows" and is still read; a reader of 1 does not take 2, whose rows it would not divide."""

LINEAR = (
    "LinearDiscriminantAnalysis",
    "LinearSVC",
    "LogisticRegression",
    "LogisticRegressionCV",
    "PassiveAggressiveClassifier",
    "Perceptron",
    "RidgeClassifier",
    "RidgeClassifierCV",
    "SGDClassifier",
)
"""scikit-learn's classifiers that decide by ``X @ coef_.T + intercept_``."""

UNIT_ROWS_STEP = "unit_rows"
"""Name of the step that divides rows by their length, the first after pooling."""

_PROBES = 64
# of probabilities and decision values; scikit-learn scales and projects float32 features in float32
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class LinearHead:
    """Classifies by ``pooled features @ weights + bias``; with `unit_rows` they are divided by their length.

    Attributes
    ----------
    pooling : {"flatten", "avg", "max"}
        What makes vectors of features (n, h, w, c).
    weights : ndarray of float64, shape (d, k)
        k is 1 for two classes, whose second one positive values mean.
    bias : ndarray of float64, shape (k,)
    classes_ : ndarray, shape (classes,)
    link : {"sigmoid", "softmax", "ovr", "none"}
        What makes probabilities of the k values; "ovr" is a sigmoid of each, divided by their sum.
        With "none" the classifier gives no probabilities.
    unit_rows : bool
        Whether pooled features are divided by their Euclidean length first.
    """

    pooling: str
    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    classes_: NDArray[Any]
    link: str
    unit_rows: bool = False

    def decision_function(self, X: NDArray[Any]) -> NDArray[np.float64]:
        """Return the values by which the head decides, (n, k), or (n,) for two classes.

        Raises
        ------
        ValueError
            `X` holds NaN or infinity, or has another number of features.
        """
        values = self._values(X)
        return values[:, 0] if values.shape[1] == 1 else values

    def predict(self, X: NDArray[Any]) -> NDArray[Any]:
        """Return the class of every row, (n,)."""
        values = self._values(X)
        chosen = (values[:, 0] > 0).astype(int) if values.shape[1] == 1 else values.argmax(axis=1)
        labels: NDArray[Any] = self.classes_[chosen]
        return labels

    def __getattr__(self, name: str) -> Any:
        # as in scikit-learn, a classifier without probabilities has no such method
        if name == "predict_proba" and self.link != "none":
            return self._probabilities
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")

    def _probabilities(self, X: NDArray[Any]) -> NDArray[np.float64]:
        return LINKS[self.link](self._values(X))

    def _values(self, X: NDArray[Any]) -> NDArray[np.float64]:
        vectors = pool(np.asarray(X), self.pooling)
        if vectors.ndim != 2 or vectors.shape[1] != len(self.weights):
            raise ValueError(
                f"X has features of shape {np.shape(X)[1:]}; the head takes {len(self.weights)} numbers a row"
            )
        if not np.isfinite(vectors).all():
            raise ValueError("X contains NaN or infinity")
        rows = vectors.astype(np.float64)
        values: NDArray[np.float64] = (unit_rows(rows) if self.unit_rows else rows) @ self.weights + self.bias
        return values


def _sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    # exp of a negative number only: it cannot overflow, and small probabilities stay what they are
    small = np.exp(-np.abs(values))
    likely = 1 / (1 + small)
    return np.where(values < 0, small * likely, likely)


def _pair(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([_sigmoid(-values), _sigmoid(values)], axis=1)


def _softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _one_against_rest(values: NDArray[np.float64]) -> NDArray[np.float64]:
    each = _sigmoid(values)
    shares: NDArray[np.float64] = each / each.sum(axis=1, keepdims=True)
    return shares


LINKS = {"sigmoid": _pair, "softmax": _softmax, "ovr": _one_against_rest}


def linear_form(head: Any) -> LinearHead:
    """Return a fitted scikit-learn head as a `LinearHead`.

    Parameters
    ----------
    head : scikit-learn classifier
        As `featcache.heads.estimators.build_head` builds it, or calibrated by temperature; or a classifier
        by itself.

    Raises
    ------
    ModelError
        It cannot be expressed so; the message says why.
    """
    inner, temperature = _uncalibrated(head)
    form = (
        inner.linear_form() if hasattr(inner, "linear_form") else _of_pipeline(inner, temperature is not None)
    )
    if temperature is not None:
        # for two classes scikit-learn scales the pair (-x, x), whose softmax is the sigmoid of twice x
        factor = temperature * (2 if form.bias.size == 1 else 1)
        form = replace(form, weights=form.weights * factor, bias=form.bias * factor)
    form = replace(form, classes_=np.asarray(head.classes_))
    _compare(form, head)
    return form


def _of_pipeline(head: Any, calibrated: bool) -> LinearHead:
    """Return the linear form of a pipeline, or of a classifier by itself."""
    steps = dict(getattr(head, "steps", [("classifier", head)]))
    classifier, pooling = steps.pop("classifier", head), steps.pop("pool", None)
    if type(classifier).__name__ not in LINEAR:
        raise ModelError(
            f"{type(classifier).__name__} does not decide by one product of "
            f"weights and features, so it cannot be a dense layer; those that do are {', '.join(LINEAR)}"
        )
    has_unit_rows = steps.pop(UNIT_ROWS_STEP, None) is not None
    weights, bias = np.atleast_2d(classifier.coef_).T, np.atleast_1d(classifier.intercept_)
    affine = _Affine(weights.astype(np.float64), bias.astype(np.float64))
    for name, step in reversed(steps.items()):
        if name not in _FOLDS:
            raise ModelError(f"its step {name!r}, a {type(step).__name__}, is none that weights can take in")
        affine = _FOLDS[name](affine, step)
    link = _link(classifier, affine, calibrated=calibrated)
    return LinearHead(
        "flatten" if pooling is None else pooling.pooling, *affine, head.classes_, link, has_unit_rows
    )


class _Affine(NamedTuple):
    """Vectors x → ``x @ weights + bias``."""

    weights: NDArray[np.float64]
    bias: NDArray[np.float64]


def _uncalibrated(head: Any) -> tuple[Any, float | None]:
    """Return the pipeline inside a calibrated head, and what its values are multiplied with."""
    found = getattr(head, "calibrated_classifiers_", None)
    if found is None or len(found) != 1:
        return head, None
    frozen = found[0].estimator
    return getattr(frozen, "estimator", frozen), float(getattr(found[0].calibrators[0], "beta_", np.nan))


def _without_scaling(affine: _Affine, scaler: Any) -> _Affine:
    # scale_ and mean_ are None where the scaler leaves that out
    width = len(affine.weights)
    scale = np.ones(width) if scaler.scale_ is None else scaler.scale_
    mean = np.zeros(width) if scaler.mean_ is None else scaler.mean_
    weights = affine.weights / scale[:, None]
    return _Affine(weights, affine.bias - mean @ weights)


def _without_projection(affine: _Affine, pca: Any) -> _Affine:
    weights = pca.components_.T.astype(np.float64) @ affine.weights
    return _Affine(weights, affine.bias - pca.mean_ @ weights)


_FOLDS = {"scale": _without_scaling, "pca": _without_projection}


def _link(classifier: Any, affine: _Affine, *, calibrated: bool) -> str:
    if not calibrated and not hasattr(classifier, "predict_proba"):
        return "none"
    if affine.bias.size == 1:
        return "sigmoid"
    return "ovr" if type(classifier).__name__ == "SGDClassifier" and not calibrated else "softmax"


def _compare(form: LinearHead, head: Any) -> None:
    """Ask both about rows on both sides of their boundaries.

    Raises
    ------
    ModelError
        They do not say the same: probabilities can be made of decision values in other ways, too.
    """
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((_PROBES, len(form.weights)))
    # of a length at which values are neither all near 0 nor all far away
    rows /= max(1e-12, float(np.abs(rows @ form.weights).mean()))
    rows -= np.linalg.pinv(form.weights.T) @ form.bias
    asked = "predict_proba" if form.link != "none" else "decision_function"
    theirs, ours = (np.asarray(getattr(one, asked)(rows)) for one in (head, form))
    if not np.allclose(ours, theirs, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise ModelError("its probabilities are not made of its decision values in a way that is known here")


def save_linear(form: LinearHead, head_file: Path) -> None:
    """Keep a linear form beside the file of the head that it was made of.

    Raises
    ------
    StoreError
        The file cannot be written.
    """
    facts = {
        "format": FORMAT,
        "pooling": form.pooling,
        "link": form.link,
        "unit_rows": form.unit_rows,
        **labels_to_json(form.classes_),
        "of": hashlib.sha256(head_file.read_bytes()).hexdigest(),
    }
    data = io.BytesIO()
    np.savez(
        data, weights=form.weights, bias=form.bias, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8)
    )
    write_bytes_whole(head_file.with_name(LINEAR_FILE), data.getvalue())


def load_linear(head_file: Path) -> LinearHead | None:
    """Return the linear form of exactly the head in `head_file`, or None where there is no valid one."""
    try:
        return read_linear(read_regular(head_file), read_regular(head_file.with_name(LINEAR_FILE)))
    except OSError:
        return None  # the head file holds everything that is in it


def read_linear(head: bytes, data: bytes) -> LinearHead | None:
    """Return a linear form as `load_linear`, from the contents of a head's file and of its `LINEAR_FILE`."""
    try:
        digest = hashlib.sha256(head).hexdigest()
        arrays = read_arrays(data)
        facts = json.loads(arrays["facts"].tobytes())
        if facts["of"] != digest or facts["format"] not in (1, FORMAT):
            return None
        numbers = (arrays["weights"], arrays["bias"])
        has_unit_rows = facts["unit_rows"] if facts["format"] > 1 else False
        form = LinearHead(facts["pooling"], *numbers, labels_from_json(facts), facts["link"], has_unit_rows)
        return form if _is_valid(form) else None
    except DAMAGE:
        return None


def _is_valid(form: LinearHead) -> bool:
    """Whether the parts fit each other: a wrong link or shape gives numbers that are not probabilities."""
    numbers = (form.weights, form.bias)
    outputs = 1 if len(form.classes_) == 2 else len(form.classes_)
    links = {"none", "sigmoid"} if outputs == 1 else {"none", "softmax", "ovr"}
    return (
        form.pooling in POOLINGS
        and isinstance(form.unit_rows, bool)
        and form.link in links
        and form.weights.ndim == 2
        and form.weights.shape[1:] == form.bias.shape == (outputs,)
        and all(array.dtype == np.float64 and bool(np.isfinite(array).all()) for array in numbers)
    )
