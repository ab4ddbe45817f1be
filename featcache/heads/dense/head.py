"""The Dense head: a small network with scikit-learn's interface; TensorFlow trains it, NumPy runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, check_X_y, validate_data

from featcache.errors import TrainingError
from featcache.heads.dense.feed import is_feature_source, read_checked
from featcache.heads.dense.program import has_dropout_before
from featcache.heads.dense.stack import MAX_MEMORY, fit_folds, fit_together
from featcache.heads.dense.training import Trained, TrainingParams
from featcache.heads.pooling import check_spatial, is_spatial
from featcache.heads.private import Interval, InvalidParameterError, StrOptions
from featcache.heads.vectors import vectors_of
from featcache.runtime import keras, pooling_layer

BLOCK_ROWS = 2048
"""Rows that are predicted at once: bounds the float32 copy of float16 features."""

ACTIVATIONS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "relu": lambda z: np.maximum(z, 0),
    "elu": lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
    "gelu": lambda z: z * (erf(z * np.float32(0.5**0.5)) + 1) / 2,
    "silu": lambda z: z * expit(z),
    "sigmoid": expit,
    "tanh": np.tanh,
}
"""In NumPy, under Keras's names; float32 in, float32 out."""


class DenseHead(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Dense and Dropout layers on features, as a scikit-learn classifier.

    Training imports TensorFlow and runs a compiled loop; predicting is NumPy alone.
    Two classes get one logit with a sigmoid, more get a softmax; every loss is taken on logits.

    Parameters
    ----------
    units : tuple or list of int, or int, default ()
        Sizes of the hidden layers; () is a linear head.
    activation : {"relu", "elu", "gelu", "silu", "sigmoid", "tanh"}, default "relu"
        Of the hidden layers.
    dropout : float in [0, 1), default 0.0
        Acts on what every hidden layer gives; without hidden layers, on the pooled features. So
        ``units=(256,), dropout=0.5`` is Dense(256), Dropout(0.5), Dense(1), and
        ``pooling="avg", dropout=0.2`` is GlobalAveragePooling2D, Dropout(0.2), Dense(1).
    pooling : {"flatten", "avg", "max"}, default "flatten"
        How (n, h, w, c) features become vectors; (n, c) features are taken as they are.
    pca : int, optional
        Train on that many principal components of the pooled features, found on the training rows. The fitted
        head takes features as ever: the projection becomes part of its first layer.
    optimizer : {"adam", "rmsprop", "sgd"}, default "adam"
        With Keras's arithmetic and constants.
    learning_rate : float, default 1e-3
    momentum : float in [0, 1), default 0.0
        Of "sgd" and "rmsprop"; "adam" has none and refuses it.
    epochs : int, default 20
    batch_size : int, default 32
        The last batch of an epoch holds what is left over.
    l2 : float, default 0.0
        Adds ``l2 * sum(kernel ** 2)`` over all kernels to the loss, as keras.regularizers.L2 does.
    label_smoothing : float in [0, 1), default 0.0
    class_weight : None, "balanced" or dict of label to float, default None
        As in scikit-learn; the loss is the mean of weight times cross-entropy over the batch's rows.
    early_stopping : bool, default True
        End when ``val_loss`` has not fallen for `patience` epochs, and keep the best epoch's weights. Without
        validation data, and with too few photos to hold some out (fewer than 30) or features on disk, all
        epochs are trained, and a warning says so.
    validation_fraction : float in (0, 1), default 0.1
        Share of the photos that `early_stopping` holds out if `fit` gets no validation data, drawn per class:
        at least one of every class that has two.
    patience : int, default 5
    random_state : int, RandomState or None, default None
        First weights, order of rows, dropout and the held-out share follow from it alone: the same
        number gives the same head every time on one machine.

    Attributes
    ----------
    classes_ : array of shape (k,)
        The labels, sorted.
    coefs_, intercepts_ : list of float32 arrays
        Kernels (d_in, d_out) and biases (d_out,) per layer; d_out of the last is 1 for two classes, else k.
    features_shape_ : tuple of int
        Shape of one image's features: (h, w, c) or (c,).
    n_features_in_ : int
        How many numbers that is.
    before_ : dict of str to float, or None
        ``loss`` and ``accuracy`` that the first weights give on the validation data, before any epoch;
        None without validation data. The loss is taken as ``val_loss`` is.
    history_ : dict of str to list of float
        ``loss`` and ``accuracy`` per epoch, with validation data also ``val_loss`` and ``val_accuracy``.
    best_epoch_ : int
        Epoch, counted from 1, of the least ``val_loss`` (without validation data: ``loss``).
    n_iter_ : int
        Epochs run.

    Examples
    --------
    >>> head = DenseHead(units=(256,), dropout=0.5, random_state=0)  # doctest: +SKIP
    >>> head.fit(features, labels, validation_data=held_out).score(*held_out)  # doctest: +SKIP
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "units": [tuple, list, Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "pooling": [StrOptions({"flatten", "avg", "max"})],
        "pca": [Interval(Integral, 1, None, closed="left"), None],
        "optimizer": [StrOptions({"adam", "rmsprop", "sgd"})],
        # weights are kept divided by it, and must stay what single precision can hold
        "learning_rate": [Interval(Real, 1e-30, None, closed="left")],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "l2": [Interval(Real, 0, None, closed="left")],
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
        "class_weight": [StrOptions({"balanced"}), dict, None],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        units: tuple[int, ...] | list[int] | int = (),
        *,
        activation: str = "relu",
        dropout: float = 0.0,
        pooling: str = "flatten",
        pca: int | None = None,
        optimizer: str = "adam",
        learning_rate: float = 1e-3,
        momentum: float = 0.0,
        epochs: int = 20,
        batch_size: int = 32,
        l2: float = 0.0,
        label_smoothing: float = 0.0,
        class_weight: str | dict[Any, float] | None = None,
        early_stopping: bool = True,
        validation_fraction: float = 0.1,
        patience: int = 5,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.units = units
        self.activation = activation
        self.dropout = dropout
        self.pooling = pooling
        self.pca = pca
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.epochs = epochs
        self.batch_size = batch_size
        self.l2 = l2
        self.label_smoothing = label_smoothing
        self.class_weight = class_weight
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: Any = None,
        validation_data: Any = None,
        *,
        views: int = 1,
        max_memory: int = MAX_MEMORY,
        sample_weight: Any = None,
        groups: Any = None,
    ) -> Self:
        """Train on features `X` and labels `y`.

        Parameters
        ----------
        X : array of shape (n, h, w, c) or (n, c), or a split of a feature file
            A split is read from disk again in every epoch, in blocks of shuffled order that are shuffled
            once more in memory, and never stands in memory as a whole.
        y : array of shape (n,)
            Labels of any kind that sorts: strings, integers. A split brings its own.
        validation_data : (X, y), (X, y, sample_weight) or a split, optional
            Measured after every epoch; decides about early stopping.
        views : int, default 1
            Every so many rows of `X` are views of one photo, the plain one first, and `y` has its label for
            each of them. An epoch trains on every photo once, in a view drawn at random; `pca` is found on
            all of them. A split brings its own number.
        max_memory : int, default 1 GiB
            Bytes that the features of splits may take in memory at once.
        sample_weight : array of shape (n,), optional
            Multiplies the loss of each row, as ``class_weight`` does; 0 or more. A split brings its own.
        groups : array of shape (n,), optional
            Rows that belong together, such as photos of one animal: what `early_stopping` holds out without
            validation data are whole groups.

        Raises
        ------
        ValueError
            A parameter is impossible, `X` holds NaN or infinity, `y` has only one class, or the rows are no
            photos in so many `views`.
        TrainingError
            The loss diverged, or `X` has fewer components than `pca` asks for.
        """
        (error,) = fit_together(
            [self],
            X,
            y,
            validation_data,
            views=views,
            max_memory=max_memory,
            sample_weight=sample_weight,
            groups=groups,
        )
        if error is not None:
            raise error
        return self

    def fit_folds(
        self, X: Any, y: Any, folds: NDArray[np.int64], views: int = 1, *, sample_weight: Any = None
    ) -> list[DenseHead | TrainingError]:
        """Fit a clone per fold on the rows outside of it, see `featcache.heads.dense.stack.fit_folds`."""
        return fit_folds([self], X, y, folds, views, sample_weight=sample_weight)[0]

    def decision_function(self, X: Any) -> NDArray[np.float32]:
        """Return logits: (n,) of the second class for two classes, else (n, k)."""
        check_is_fitted(self)
        blocks = [self._logits(block) for block in _blocks(self._check(X))]
        logits = np.concatenate(blocks)
        return logits[:, 0] if self._binary else logits

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Return the classes' probabilities, (n, k) float32, columns as in `classes_`.

        Raises
        ------
        ValueError
            `X` holds NaN or infinity, or its features have another shape than those of `fit`.
        """
        logits = self.decision_function(X)
        if self._binary:
            # 1 - expit(z) would lose the small probabilities
            return np.stack([expit(-logits), expit(logits)], axis=1)
        probabilities: NDArray[np.float32] = softmax(logits, axis=1)
        return probabilities

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable label for every row, (n,)."""
        logits = self.decision_function(X)
        chosen = (logits > 0).astype(int) if self._binary else logits.argmax(axis=1)
        labels: NDArray[Any] = self.classes_[chosen]
        return labels

    def to_keras(self) -> Any:
        """Return a Keras model with the same outputs to 1e-5; needs TensorFlow.

        It takes features of shape (h, w, c) or (c,) and pools inside. As Keras users expect, two
        classes give one column, the probability of ``classes_[1]``; more give a softmax of k columns.

        Returns
        -------
        keras.Model
        """
        check_is_fitted(self)
        module = keras()
        layers = self._keras_layers(module)
        model = module.Sequential([module.Input(self.features_shape_, name="features"), *layers], name="head")
        model.set_weights([w for pair in zip(self.coefs_, self.intercepts_, strict=True) for w in pair])
        return model

    def _keras_layers(self, module: Any) -> list[Any]:
        layers: list[Any] = []
        if len(self.features_shape_) > 1:
            layers.append(pooling_layer(self.pooling, "pooling"))
        last = "sigmoid" if self._binary else "softmax"
        for depth, kernel in enumerate(self.coefs_):
            # with a pca what was dropped were components, which the model has no more
            kept = depth > 0 or self.pca is None
            if self.dropout > 0 and has_dropout_before(depth, len(self.coefs_)) and kept:
                layers.append(module.layers.Dropout(self.dropout))
            is_last = depth == len(self.coefs_) - 1
            name = "output" if is_last else f"hidden_{depth + 1}"
            layers.append(
                module.layers.Dense(kernel.shape[1], last if is_last else self.activation, name=name)
            )
        return layers

    def _validate_params(self) -> None:
        super()._validate_params()
        if not all(_is_size(size) for size in self._hidden):
            raise InvalidParameterError(
                "The 'units' parameter of DenseHead must hold integers of 1 or more. "
                f"Got {self.units!r} instead."
            )
        if self.optimizer == "adam" and self.momentum > 0:
            raise InvalidParameterError(
                "The 'momentum' parameter of DenseHead goes with the optimizers 'sgd' and 'rmsprop'. "
                f"Got {self.momentum!r} with 'adam' instead."
            )

    @property
    def _hidden(self) -> tuple[int, ...]:
        return tuple(self.units) if isinstance(self.units, tuple | list) else (self.units,)

    @property
    def _binary(self) -> bool:
        return len(self.classes_) == 2

    def _training_params(
        self, binary: bool, class_weights: tuple[float, ...] | None, held_out: int
    ) -> TrainingParams:
        own = {field.name for field in fields(TrainingParams)} & set(self.get_params())
        values = {name: getattr(self, name) for name in own}
        patience = self.patience if self.early_stopping else None
        return TrainingParams(
            **values | {"patience": patience}, binary=binary, class_weights=class_weights, held_out=held_out
        )

    def _keep(self, trained: Trained, facts: dict[str, Any]) -> None:
        for name, value in facts.items():
            setattr(self, name, value)
        self.coefs_, self.intercepts_ = trained.weights[::2], trained.weights[1::2]
        self.before_ = trained.before
        self.history_ = trained.history
        self.best_epoch_ = trained.best_epoch
        self.n_iter_ = len(trained.history["loss"])

    def _take(self, X: Any, y: Any) -> tuple[Any, NDArray[Any]]:
        """Check training data, learn their shape and return features and labels."""
        if is_feature_source(X):
            y = X.labels if y is None else np.asarray(y)
            self.n_features_in_ = int(np.prod(X.shape[1:]))
        elif is_spatial(X):
            X, y = check_X_y(check_spatial(X), y, dtype=_FLOATS, allow_nd=True, estimator=self)
            self.n_features_in_ = int(np.prod(X.shape[1:]))
        else:
            X, y = validate_data(self, X, y, dtype=_FLOATS)
        check_classification_targets(y)
        self.features_shape_ = tuple(map(int, X.shape[1:]))
        return X, y

    def _check(self, X: Any) -> Any:
        """Return `X` as finite numbers of the shape of `fit`; a split's are checked when they are read."""
        if is_feature_source(X):
            checked = X
        else:
            checked = (
                check_spatial(X) if is_spatial(X) else validate_data(self, X, reset=False, dtype=_FLOATS)
            )
        if checked.shape[1:] != self.features_shape_:
            raise ValueError(
                f"X has features of shape {checked.shape[1:]}, "
                f"but DenseHead was fitted on {self.features_shape_}"
            )
        return checked

    def _logits(self, features: NDArray[Any]) -> NDArray[np.float32]:
        signal = vectors_of(features, self.pooling).astype(np.float32, copy=False)
        for depth, (kernel, bias) in enumerate(zip(self.coefs_, self.intercepts_, strict=True)):
            if depth:
                signal = ACTIVATIONS[self.activation](signal)
            signal = signal @ kernel + bias
        return signal


_FLOATS = [np.float32, np.float16]


def _is_size(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 1)


def _blocks(features: Any) -> Iterator[NDArray[Any]]:
    for first in range(0, len(features), BLOCK_ROWS):
        if is_feature_source(features):
            yield read_checked(features, first, min(first + BLOCK_ROWS, len(features)))
        else:
            yield features[first : first + BLOCK_ROWS]
