"""The Keras head: a network of the user's own on features, as a scikit-learn classifier."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import isfunction
from numbers import Integral
from typing import Any, ClassVar, NamedTuple, Self
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state, compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, check_X_y, validate_data

from featcache.errors import RecipeError, TrainingError
from featcache.heads.dense.head import BLOCK_ROWS
from featcache.heads.pooling import FLOATS, check_spatial, is_spatial
from featcache.heads.private import Interval, StrOptions
from featcache.runtime import keras, refuse_after_fork, tensorflow

# Keras's losses for classes; its functions have the same names in lower case.
_ONE_UNIT = {"BinaryCrossentropy", "BinaryFocalCrossentropy"}
_CLASS_NUMBERS = {"SparseCategoricalCrossentropy"}
_ONE_HOT = {"CategoricalCrossentropy", "CategoricalFocalCrossentropy"}

_KEEPS_NUMBERS = {"Dropout", "Flatten", "Identity", "Reshape"}  # layers, in inference mode
_trained: WeakSet[Any] = WeakSet()


class KerasHead(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A Keras model of your own on features, as a scikit-learn classifier.

    The model may end in 1 unit (two classes only: a sigmoid or a logit of the second class) or in one
    unit per class (a softmax or logits). Which of them it is, its last activation says and, where it is
    compiled, its loss; both have to agree. Keras's own ``fit`` trains it. Predictions run it in
    inference mode: Dropout does nothing, BatchNormalization uses its moving averages.

    Parameters
    ----------
    build_fn : callable
        ``build_fn(features_shape, classes)`` returns a new `keras.Model` in every call: for the shape of
        one image's features, (h, w, c) or (c,), and the number of classes. A model that is not compiled
        gets Adam, cross-entropy and the metric "accuracy". A compiled one is trained as it is, on a
        cross-entropy of Keras (binary, sparse or categorical, plain or focal) or on a loss of your own,
        which gets the labels in the shape of the outputs. Its metrics are yours, too: on one logit,
        Keras's "accuracy" counts what is above 0.5; ``keras.metrics.BinaryAccuracy(threshold=0)`` does not.
    epochs : int, default 20
    batch_size : int, default 32
        The last batch of an epoch holds what is left over.
    callbacks : tuple or list of keras.callbacks.Callback, or callable, default ()
        Used as they are in every fit, or made anew for every fit by a function without arguments.
    class_weight : None, "balanced" or dict of label to float, default None
        As in scikit-learn; the loss is the mean of weight times loss over the batch's rows.
    random_state : int, RandomState or None, default None
        With a number, `build_fn` and training run after `keras.utils.set_random_seed`: the same number
        gives the same head every time on one machine. The global generators of Python and NumPy are put
        back afterwards; the global seed of TensorFlow and Keras cannot be and stays set. With None
        nothing global is touched.
    verbose : {0, 1, 2, "auto"}, default 0
        Of Keras's ``fit``.

    Attributes
    ----------
    model_ : keras.Model
        The trained model.
    classes_ : array of shape (k,)
        The labels, sorted.
    from_logits_ : bool
        Whether the model gives logits, not probabilities.
    features_shape_ : tuple of int
        Shape of one image's features: (h, w, c) or (c,).
    n_features_in_ : int
        How many numbers that is.
    history_ : dict of str to list of float
        What Keras measured per epoch: ``loss`` and the metrics, with validation data also ``val_loss``
        and the like. ``loss`` counts class weights, ``val_loss`` does not.
    n_iter_ : int
        Epochs run.

    Examples
    --------
    >>> def build(features_shape, classes):  # doctest: +SKIP
    ...     layers = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(classes, "softmax")]
    ...     return keras.Sequential([keras.Input(features_shape), *layers])
    >>> head = KerasHead(build, random_state=0).fit(features, labels)  # doctest: +SKIP
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "build_fn": [callable, None],
        "epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "callbacks": [tuple, list, callable],
        "class_weight": [StrOptions({"balanced"}), dict, None],
        "random_state": ["random_state"],
        "verbose": [Interval(Integral, 0, 2, closed="both"), StrOptions({"auto"})],
    }

    def __init__(
        self,
        build_fn: Callable[[tuple[int, ...], int], Any] | None,
        *,
        epochs: int = 20,
        batch_size: int = 32,
        callbacks: Sequence[Any] | Callable[[], Sequence[Any]] = (),
        class_weight: str | dict[Any, float] | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int | str = 0,
    ) -> None:
        self.build_fn = build_fn
        self.epochs = epochs
        self.batch_size = batch_size
        self.callbacks = callbacks
        self.class_weight = class_weight
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any, validation_data: tuple[Any, Any] | None = None) -> Self:
        """Build a new model and train it on features `X` and labels `y`.

        Parameters
        ----------
        X : array of shape (n, h, w, c) or (n, c)
            The model gets them as float32.
        y : array of shape (n,)
            Labels of any kind that sorts: strings, integers.
        validation_data : (X, y), optional
            Measured after every epoch, for the history and the callbacks.

        Raises
        ------
        ValueError
            A parameter is impossible, `X` holds NaN or infinity, or `y` has only one class.
        RecipeError
            `build_fn` is missing, or what it or `callbacks` gives cannot be trained on classes.
        TrainingError
            The loss diverged.
        """
        self._validate_params()
        if self.build_fn is None:
            raise RecipeError(
                "KerasHead has no build_fn (a file keeps none): it predicts, but cannot be fitted again; "
                "give it the function that builds its model with set_params(build_fn=...)"
            )
        features, y = self._take(X, y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            (only,) = self.classes_.tolist()
            raise ValueError(f"a classifier needs at least 2 classes; y has one class, {only!r}")
        validation = None if validation_data is None else self._validation_rows(*validation_data)
        with _seeded(self.random_state):
            self._train(features, labels, validation)
        return self

    def decision_function(self, X: Any) -> NDArray[np.float32]:
        """Return logits: (n,) of the second class for two classes, else (n, k).

        Of a model that gives probabilities these are their log-odds or logarithms, which are finite
        where a probability was rounded to 0 or 1.
        """
        outputs = self._outputs(X)
        logits = outputs if self.from_logits_ else _as_logits(outputs)
        if len(self.classes_) > 2:
            return logits
        return logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Return the classes' probabilities, (n, k) float32, columns as in `classes_`.

        Raises
        ------
        ValueError
            `X` holds NaN or infinity, or its features have another shape than those of `fit`.
        """
        outputs = self._outputs(X)
        if outputs.shape[1] == 1:
            # 1 - expit(z) would lose the small probabilities
            pair = (expit(-outputs), expit(outputs)) if self.from_logits_ else (1 - outputs, outputs)
            return np.concatenate(pair, axis=1)
        probabilities: NDArray[np.float32] = softmax(outputs, axis=1) if self.from_logits_ else outputs
        return probabilities

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable label for every row, (n,)."""
        outputs = self._outputs(X)
        if outputs.shape[1] == 1:
            chosen = (outputs[:, 0] > _threshold(self.from_logits_)).astype(int)
        else:
            chosen = outputs.argmax(axis=1)
        labels: NDArray[Any] = self.classes_[chosen]
        return labels

    def to_keras(self) -> Any:
        """Return the trained model itself, not a copy.

        Returns
        -------
        keras.Model
        """
        check_is_fitted(self)
        return self.model_

    def _train(
        self, features: NDArray[np.float32], labels: NDArray[Any], validation: tuple[Any, Any] | None
    ) -> None:
        network = _network(self.build_fn, self.features_shape_, len(self.classes_))
        if validation is not None:
            validation = validation[0], network.targets(validation[1])
        history = network.model.fit(
            features,
            network.targets(labels),
            sample_weight=self._weights(labels),
            validation_data=validation,
            epochs=self.epochs,
            batch_size=self.batch_size,
            callbacks=[_divergence_guard(self.epochs), *self._callbacks()],
            verbose=self.verbose,
        )
        if not all(np.isfinite(weight).all() for weight in network.model.get_weights()):
            raise _diverged(len(history.epoch), self.epochs)
        self.model_, self.from_logits_ = network.model, network.from_logits
        self.history_ = {
            name: [np.asarray(value).tolist() for value in values] for name, values in history.history.items()
        }
        self.n_iter_ = len(history.epoch)

    def _callbacks(self) -> list[Any]:
        given = self.callbacks() if callable(self.callbacks) else self.callbacks
        wanted = keras().callbacks.Callback
        if isinstance(given, tuple | list) and all(isinstance(callback, wanted) for callback in given):
            return list(given)
        raise RecipeError(
            f"callbacks of KerasHead are {given!r}; give a list of keras.callbacks.Callback, "
            "or a function without arguments that returns one"
        )

    def _weights(self, labels: NDArray[Any]) -> NDArray[np.float32] | None:
        if self.class_weight is None:
            return None
        weights = compute_class_weight(self.class_weight, classes=self.classes_, y=self.classes_[labels])
        return np.asarray(weights[labels], np.float32)

    def _take(self, X: Any, y: Any) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Check training data and learn their shape."""
        if is_spatial(X):
            X, y = check_X_y(check_spatial(X), y, dtype=FLOATS, allow_nd=True, estimator=self)
            self.n_features_in_ = int(np.prod(X.shape[1:]))
        else:
            X, y = validate_data(self, X, y, dtype=FLOATS)
        check_classification_targets(y)
        self.features_shape_ = tuple(map(int, X.shape[1:]))
        return X.astype(np.float32, copy=False), y

    def _check(self, X: Any) -> NDArray[Any]:
        """Return `X` as finite numbers of the shape of `fit`."""
        checked = check_spatial(X) if is_spatial(X) else validate_data(self, X, reset=False, dtype=FLOATS)
        if checked.shape[1:] != self.features_shape_:
            raise ValueError(
                f"X has features of shape {checked.shape[1:]}, "
                f"but KerasHead was fitted on {self.features_shape_}"
            )
        return checked

    def _validation_rows(self, X: Any, y: Any) -> tuple[NDArray[np.float32], NDArray[Any]]:
        features, y = self._check(X).astype(np.float32, copy=False), np.asarray(y)
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(f"validation_data has labels that y has not: {unknown.tolist()[:5]}")
        if y.shape != (len(features),):
            raise ValueError(
                f"validation_data has {len(features)} rows of features and labels of shape {y.shape}"
            )
        return features, np.searchsorted(self.classes_, y)

    def _outputs(self, X: Any) -> NDArray[np.float32]:
        """Run the model in inference mode and return what it gives, (n, 1) or (n, k).

        Called block by block: ``predict`` of Keras retraces for other sizes, and a loop of it leaks.
        """
        check_is_fitted(self)
        refuse_after_fork()
        checked = self._check(X)
        blocks = [
            _run(self.model_, checked[first : first + BLOCK_ROWS])
            for first in range(0, len(checked), BLOCK_ROWS)
        ]
        return np.concatenate(blocks)


class _Network(NamedTuple):
    """A compiled model, and how its labels and its outputs are to be read."""

    model: Any
    units: int
    from_logits: bool
    takes_numbers: bool

    def targets(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Return class numbers as the loss takes them: as they are, or in the shape of the outputs."""
        if self.takes_numbers:
            return labels.astype(np.int32)
        if self.units == 1:
            return labels[:, None].astype(np.float32)
        one_hot: NDArray[np.float32] = np.eye(self.units, dtype=np.float32)[labels]
        return one_hot


class _Loss(NamedTuple):
    """What a loss tells of the model that it is for; `from_logits` is None where it does not say."""

    takes_numbers: bool
    from_logits: bool | None


def output_units(model: Any, features_shape: tuple[int, ...], classes: int) -> int:
    """Run `model` on one row of zeros, which also builds it, and return how many numbers it gives.

    Parameters
    ----------
    model : keras.Model
    features_shape : tuple of int
        (h, w, c) or (c,).
    classes : int

    Returns
    -------
    int
        1, of two classes only, or `classes`.

    Raises
    ------
    ValueError
        It does not take these features, or gives another number of outputs.
    """
    try:
        outputs = model(np.zeros((1, *features_shape), np.float32), training=False)
    except tensorflow().errors.OpError as error:
        raise ValueError(str(error)) from error
    shape = tuple(getattr(outputs, "shape", ()))
    allowed = [(1, 1), (1, 2)] if classes == 2 else [(1, classes)]
    if shape not in allowed:
        wanted = " or ".join(f"(n, {units})" for _, units in allowed)
        given = f"shape (n, {', '.join(map(str, shape[1:]))})" if shape else f"type {type(outputs).__name__}"
        raise ValueError(f"its output has {given}; for {classes} classes it has to be {wanted}")
    return int(shape[1])


def _network(build_fn: Any, features_shape: tuple[int, ...], classes: int) -> _Network:
    """Build a model and find out what it gives; compile it if that is not done.

    Raises
    ------
    RecipeError
        It is no new model, or none for these features and classes.
    """
    model = build_fn(features_shape, classes)
    if not isinstance(model, keras().Model):
        raise RecipeError(f"build_fn returned {model!r}; it has to return a keras.Model")
    if model in _trained:
        raise RecipeError(
            "build_fn returned a model that was trained before, so that training would go on from there; "
            "build a new model in every call"
        )
    try:
        units = output_units(model, features_shape, classes)
    except ValueError as error:
        raise RecipeError(
            f"build_fn's model does not go with features of shape {features_shape}: {error}"
        ) from error
    loss = _compiled_loss(model, units) if model.compiled else None
    from_logits = _gives_logits(_last_activation(model), units, loss)
    if loss is None:
        loss = _compile(model, units, from_logits)
    _trained.add(model)
    return _Network(model, units, from_logits, loss.takes_numbers)


def _compile(model: Any, units: int, from_logits: bool) -> _Loss:
    """Compile with Adam, the loss that fits, and an accuracy that counts what `predict` says."""
    losses, metrics = keras().losses, keras().metrics
    if units == 1:
        loss = losses.BinaryCrossentropy(from_logits=from_logits)
        accuracy = metrics.BinaryAccuracy("accuracy", threshold=_threshold(from_logits))
    else:
        loss = losses.SparseCategoricalCrossentropy(from_logits=from_logits)
        accuracy = metrics.SparseCategoricalAccuracy("accuracy")
    model.compile(keras().optimizers.Adam(), loss, metrics=[accuracy])
    return _Loss(units > 1, from_logits)


def _threshold(from_logits: bool) -> float:
    """Return what one unit gives where both classes are equally probable."""
    return 0.0 if from_logits else 0.5


def _compiled_loss(model: Any, units: int) -> _Loss:
    """Read the loss that the user compiled.

    Raises
    ------
    RecipeError
        There is none, it is not one for classes, or it does not go with so many units.
    """
    given = model.loss
    if isinstance(given, str) and given.lower() in {"crossentropy", "ce"}:  # Keras chooses by the labels
        return _Loss(units > 1, from_logits=False)
    loss = None if isinstance(given, dict | list | tuple) else keras().losses.get(given)
    names = _keras_names(loss)
    if names & (_ONE_UNIT if units == 1 else _CLASS_NUMBERS | _ONE_HOT):
        return _Loss(bool(names & _CLASS_NUMBERS), getattr(loss, "from_logits", False))
    if loss is None or names:
        fitting = "BinaryCrossentropy" if units == 1 else "SparseCategoricalCrossentropy"
        raise RecipeError(
            f"build_fn compiled its model, which gives {_numbers(units)}, with the loss "
            f"{getattr(loss, 'name', given)!r}; take "
            f"keras.losses.{fitting}, its focal or one-hot relatives, or a loss of your own"
        )
    return _Loss(False, getattr(loss, "from_logits", None))


def _keras_names(loss: Any) -> set[str]:
    """Return the names of Keras's losses that `loss` is: none for one of the user's own."""
    if not isinstance(loss, keras().losses.Loss):
        camel = str(getattr(loss, "__name__", "")).title().replace("_", "")
        return {camel} if _is_of_keras(loss) else set()
    names = {kind.__name__ for kind in type(loss).__mro__ if _is_of_keras(kind)}
    known = _ONE_UNIT | _CLASS_NUMBERS | _ONE_HOT
    return names if _is_of_keras(type(loss)) else names & known


def _is_of_keras(thing: Any) -> bool:
    return str(getattr(thing, "__module__", "")).partition(".")[0] == "keras"


def _gives_logits(activation: str | None, units: int, loss: _Loss | None) -> bool:
    """Decide between logits and probabilities.

    Raises
    ------
    RecipeError
        The last activation is none for classes, disagrees with the loss, or neither of them says it.
    """
    said = loss.from_logits if loss else None
    squashing = "sigmoid" if units == 1 else "softmax"
    ends = f"build_fn's model gives {_numbers(units)} and ends in the activation {activation!r}"
    if activation not in {None, "linear", squashing}:
        raise RecipeError(f"{ends}; end it in {squashing!r}, or without activation for logits")
    if activation is None and said is None:
        raise RecipeError(
            "build_fn's model does not show whether it gives probabilities or logits; "
            "end it in a Dense layer, or compile it with a loss that has from_logits"
        )
    linear = bool(said) if activation is None else activation == "linear"
    if said not in {None, linear}:
        raise RecipeError(f"{ends}, but its loss has from_logits={said}; it takes from_logits={linear}")
    return linear


def _last_activation(layer: Any) -> str | None:
    """Return Keras's name of what acts last in a layer or model, None where that cannot be seen."""
    if isinstance(layer, keras().Sequential) or hasattr(layer, "operations"):
        parts = reversed(getattr(layer, "operations", layer.layers))
        return next((_last_activation(part) for part in parts if not _keeps_numbers(part)), None)
    kind = type(layer).__name__.lower()
    if kind in {"sigmoid", "softmax"} and _is_of_keras(type(layer)):
        return kind
    activation = getattr(layer, "activation", None)
    return activation.__name__ if isfunction(activation) and _is_of_keras(activation) else None


def _keeps_numbers(layer: Any) -> bool:
    kind = type(layer).__name__
    return kind in _KEEPS_NUMBERS or (kind == "Activation" and _last_activation(layer) == "linear")


def _numbers(units: int) -> str:
    return "1 number per row" if units == 1 else f"{units} numbers per row"


def _run(model: Any, features: NDArray[Any]) -> NDArray[np.float32]:
    outputs = model(features.astype(np.float32, copy=False), training=False)
    return np.asarray(keras().ops.convert_to_numpy(outputs), dtype=np.float32)


def _as_logits(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return log-odds of one column, logarithms of more, finite even for 0 and 1."""
    limits = np.finfo(np.float32)
    inside = np.clip(probabilities, limits.tiny, 1 - limits.epsneg)
    logits: NDArray[np.float32] = logit(inside) if inside.shape[1] == 1 else np.log(inside)
    return logits


@contextmanager
def _seeded(random_state: Any) -> Iterator[None]:
    """Run with Keras's seeds set, and give Python's and NumPy's generators back as they were."""
    if random_state is None:
        yield
        return
    seed = int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
    before = random.getstate(), np.random.get_state()
    try:
        keras().utils.set_random_seed(seed)
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def _divergence_guard(epochs: int) -> Any:
    """Return a callback that ends training once a loss is no number."""

    def check(epoch: int, logs: dict[str, Any] | None = None) -> None:
        losses = [value for name, value in (logs or {}).items() if name in {"loss", "val_loss"}]
        if not np.isfinite(losses).all():
            raise _diverged(epoch + 1, epochs)

    return keras().callbacks.LambdaCallback(on_epoch_end=check)


def _diverged(epoch: int, epochs: int) -> TrainingError:
    return TrainingError(
        f"training diverged in epoch {epoch} of {epochs}: the loss or a weight is no longer finite; "
        "compile the model in build_fn with a smaller learning rate, or scale the features"
    )
