"""Trains the upper part of a network together with its head, from features of the boundary below it.

This is the same arithmetic as training through the whole network: what is frozen gives the same numbers in
every epoch. All layers of the network run in inference mode, so BatchNorm keeps its statistics; only
the head's dropout acts.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import TrainingError
from featcache.files import write_bytes_whole
from featcache.heads.dense.feed import Feed, Rows
from featcache.heads.dense.head import DenseHead
from featcache.heads.keras_head import KerasHead
from featcache.runtime import keras, tensorflow

_EVALUATED_ROWS = 64
Measures = dict[str, float]


@dataclass(frozen=True)
class TuningPlan:
    """How to fine-tune.

    Attributes
    ----------
    optimizer : {"adam", "rmsprop", "sgd"}
    learning_rate, momentum : float
    epochs, batch_size : int
    seed : int
        Of the order of the rows.
    """

    optimizer: str = "rmsprop"
    learning_rate: float = 1e-5
    momentum: float = 0.0
    epochs: int = 10
    batch_size: int = 32
    seed: int = 0


class Top:
    """The upper part of a network, its pooling and a Dense head as one thing to train.

    Parameters
    ----------
    upper : keras.Model
        From the boundary to the network's last layer.
    pooling : {"none", "avg", "max"}
        Of the base.
    head : DenseHead
        Fitted on what the base gives.
    seed : int
        Of the head's dropout.
    below : keras.Model, optional
        From pixels to the boundary: then training runs through the whole network.
    augmentation : keras.Model, optional
        What pixels go through first, in training only.
    precision : {"f32", "bf16"}
        Of the products in `upper` while it is trained; weights, their updates and the head are f32 in any
        case (mixed precision: Micikevicius et al., 2018).
    """

    def __init__(
        self,
        upper: Any,
        pooling: str,
        head: DenseHead,
        seed: int = 0,
        below: Any = None,
        augmentation: Any = None,
        precision: str = "f32",
    ) -> None:
        self._whole, self._below, self._augmentation = upper, below, augmentation
        self._upper = _in_bf16(upper) if precision == "bf16" else upper
        self._head = _head_layers(head, upper.output_shape[1:], pooling, seed)
        self.binary = len(head.classes_) == 2
        self.classes = head.classes_
        self.shape = tuple(map(int, (below or upper).input_shape[1:]))
        self.trainable = [*self._upper.trainable_variables, *self._head.trainable_variables]

    @property
    def variables(self) -> list[Any]:
        """All that training changes, also the states of dropout's and augmentation's random numbers."""
        augmentation = self._augmentation.variables if self._augmentation is not None else []
        return [*self.trainable, *self._head.non_trainable_variables, *augmentation]

    def __call__(self, rows: Any, training: bool) -> Any:
        """Return logits of rows of flattened features, or of pixels."""
        inputs = tensorflow().reshape(rows, [-1, *self.shape])
        if training and self._augmentation is not None:
            inputs = self._augmentation(inputs, training=True)
        if self._below is not None:
            inputs = self._below(inputs, training=False)
        else:
            inputs = tensorflow().cast(inputs, "float32")
        features = tensorflow().cast(self._upper(inputs, training=False), "float32")
        return self._head(features, training=training)

    def classifier(self, history: dict[str, list[float]]) -> KerasHead:
        """Return what was trained as a head on the boundary's features, computing in f32."""
        module = keras()
        if self._upper is not self._whole:
            self._whole.set_weights(self._upper.get_weights())
        inputs = module.Input(self._whole.input_shape[1:], name="features")
        model = module.Model(
            inputs, self._head(self._whole(inputs, training=False), training=False), name="top"
        )
        head = KerasHead(None)
        head.model_, head.from_logits_ = model, True
        head.classes_ = self.classes
        head.features_shape_ = tuple(map(int, self._whole.input_shape[1:]))
        head.n_features_in_ = int(np.prod(head.features_shape_))
        head.history_, head.n_iter_ = history, len(history["loss"])
        return head


def _in_bf16(model: Any) -> Any:
    """Return a copy that multiplies bf16 numbers; its weights stay f32."""

    def copy(operation: Any) -> Any:
        # a sum between layers is no layer; it takes numbers as they come
        policy = {"dtype": "mixed_bfloat16"} if isinstance(operation, keras().layers.Layer) else {}
        return type(operation).from_config({**operation.get_config(), **policy})

    clone = keras().models.clone_model(model, clone_function=copy)
    clone.set_weights(model.get_weights())
    return clone


def _head_layers(head: DenseHead, shape: tuple[int, ...], pooling: str, seed: int) -> Any:
    """Return the base's pooling and the fitted head, up to its logits, as a Keras model."""
    module = keras()
    layers: list[Any] = [module.Input(shape)]
    if pooling != "none" and len(shape) == 3:
        kind = {"avg": module.layers.GlobalAveragePooling2D, "max": module.layers.GlobalMaxPooling2D}
        layers.append(kind[pooling](name="base_pooling"))
    of_head = head.to_keras().layers
    of_head[-1].activation = module.activations.linear
    for layer in of_head:
        if isinstance(layer, module.layers.Dropout):
            layer.seed_generator.state.assign([seed, 0])
    return module.Sequential([*layers, *of_head], name="head")


@dataclass
class Tuning:
    """The state of a fine-tuning between two epochs.

    Attributes
    ----------
    before : dict
        ``loss`` and ``accuracy`` on validation before anything was trained.
    history : dict of str to list of float
    """

    before: Measures
    history: dict[str, list[float]] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """How many epochs are done."""
        return len(self.history.get("loss", []))

    @property
    def best_epoch(self) -> int:
        """The epoch, from 1, of the highest validation accuracy; among equals of the lowest loss."""
        ranks = zip(self.history["val_accuracy"], (-loss for loss in self.history["val_loss"]), strict=True)
        return 1 + max(enumerate(ranks), key=lambda pair: pair[1])[0]

    def note(self, measures: Measures) -> None:
        """Take one epoch down."""
        for name, value in measures.items():
            self.history.setdefault(name, []).append(value)


def tune(
    top: Top,
    feeds: Mapping[str, Feed],
    plan: TuningPlan,
    checkpoints: Path,
    progress: Callable[[int], None] = lambda _: None,
) -> Tuning:
    """Train, keeping a checkpoint after each epoch; what is there already is not done again.

    In the end `top` has the weights of the best epoch.

    Parameters
    ----------
    top : Top
    feeds : mapping of str to Feed
        Flattened features of the boundary, or pixels: "train", "validation", and "test" if that is to be
        measured after every epoch as well.
    plan : TuningPlan
    checkpoints : Path
        Folder of this very fine-tuning: another plan, head or data must have another one.
    progress : callable, optional
        Told how many epochs are done.

    Raises
    ------
    TrainingError
        The loss is no longer finite.
    StoreError
        A checkpoint cannot be written.
    """
    optimizer = _optimizer(plan)
    optimizer.build(top.trainable)
    step, measure = _compiled(top, optimizer)
    kept = _Checkpoints(checkpoints, top, optimizer)
    tuning = kept.resume() or Tuning(_measured(measure, feeds["validation"]))
    progress(tuning.epochs)
    while tuning.epochs < plan.epochs:
        measures = _epoch(step, feeds["train"], plan, tuning.epochs)
        for prefix, split in (("val", "validation"), ("test", "test")):
            if split in feeds:
                measured = _measured(measure, feeds[split])
                measures |= {f"{prefix}_{name}": value for name, value in measured.items()}
        if not np.isfinite(list(measures.values())).all():
            raise TrainingError(
                f"fine-tuning diverged in epoch {tuning.epochs + 1} of {plan.epochs}: the loss is no longer "
                f"finite; finetune.learning_rate is {plan.learning_rate:g}, take a smaller one"
            )
        tuning.note(measures)
        kept.keep(tuning)
        progress(tuning.epochs)
    kept.load(tuning.best_epoch)
    return tuning


def _optimizer(plan: TuningPlan) -> Any:
    kinds = keras().optimizers
    momentum = {} if plan.optimizer == "adam" else {"momentum": plan.momentum}
    kind = {"adam": kinds.Adam, "rmsprop": kinds.RMSprop, "sgd": kinds.SGD}[plan.optimizer]
    return kind(plan.learning_rate, **momentum)


def _compiled(top: Top, optimizer: Any) -> tuple[Any, Any]:
    """Return the functions which train on a batch and which measure one; sums of loss and right answers."""
    tf = tensorflow()

    def losses(logits: Any, labels: Any) -> tuple[Any, Any]:
        if top.binary:
            logits = logits[:, 0]
            each = tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(labels, tf.float32), logits)
            return each, tf.cast(logits > 0, tf.int32) == labels
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        return each, tf.argmax(logits, -1, output_type=tf.int32) == labels

    def step(rows: Any, labels: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            each, right = losses(top(rows, training=True), labels)
            loss = tf.reduce_mean(each)
        optimizer.apply(tape.gradient(loss, top.trainable), top.trainable)
        return tf.reduce_sum(each), tf.reduce_sum(tf.cast(right, tf.float32))

    def measure(rows: Any, labels: Any) -> tuple[Any, Any]:
        each, right = losses(top(rows, training=False), labels)
        return tf.reduce_sum(each), tf.reduce_sum(tf.cast(right, tf.float32))

    return tf.function(step, reduce_retracing=True), tf.function(measure, reduce_retracing=True)


def _epoch(step: Any, feed: Feed, plan: TuningPlan, epoch: int) -> Measures:
    # an order of its own for each epoch, so that a run that continues takes the same
    rng = np.random.default_rng([plan.seed, epoch])
    return _means(step, _batches(feed.shuffled(rng, plan.batch_size), plan.batch_size))


def _measured(measure: Any, feed: Feed) -> Measures:
    pieces = ((rows, np.arange(len(rows.labels), dtype=np.int32)) for rows in feed.in_order())
    return _means(measure, _batches(pieces, _EVALUATED_ROWS))


def _batches(
    pieces: Iterator[tuple[Rows, NDArray[np.int32]]], size: int
) -> Iterator[tuple[NDArray[Any], NDArray[np.int32]]]:
    for rows, order in pieces:
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            yield rows.features[chosen], rows.labels[chosen]


def _means(function: Any, batches: Iterator[tuple[NDArray[Any], NDArray[np.int32]]]) -> Measures:
    """Return the mean loss and accuracy that `function` gives over all batches."""
    loss = right = rows = 0.0
    for features, labels in batches:
        of_batch = function(features, labels)
        loss, right, rows = loss + float(of_batch[0]), right + float(of_batch[1]), rows + len(labels)
    return {"loss": loss / rows, "accuracy": right / rows}


class _Checkpoints:
    """One file per epoch: weights, the optimizer's state and the history so far."""

    def __init__(self, folder: Path, top: Top, optimizer: Any) -> None:
        self._folder, self._top, self._optimizer = folder, top, optimizer

    def _path(self, epoch: int) -> Path:
        return self._folder / f"epoch-{epoch:04}.npz"

    def keep(self, tuning: Tuning) -> None:
        """Write the state after an epoch; older ones stay, the best of them is wanted in the end."""
        arrays = {f"weight_{i}": np.asarray(v) for i, v in enumerate(self._top.variables)}
        arrays |= {f"optimizer_{i}": np.asarray(v) for i, v in enumerate(self._optimizer.variables)}
        state = json.dumps({"before": tuning.before, "history": tuning.history})
        data = io.BytesIO()
        arrays["state"] = np.frombuffer(state.encode(), np.uint8)
        np.savez(data, **arrays)  # type: ignore[arg-type]
        write_bytes_whole(self._path(tuning.epochs), data.getvalue())

    def resume(self) -> Tuning | None:
        """Load the last epoch that is there, if there is one."""
        epochs = sorted(int(path.stem.removeprefix("epoch-")) for path in self._folder.glob("epoch-*.npz"))
        return self.load(epochs[-1]) if epochs else None

    def load(self, epoch: int) -> Tuning:
        """Give weights and optimizer the state after an epoch."""
        with np.load(self._path(epoch), allow_pickle=False) as file:
            for number, variable in enumerate(self._top.variables):
                variable.assign(file[f"weight_{number}"])
            for number, variable in enumerate(self._optimizer.variables):
                variable.assign(file[f"optimizer_{number}"])
            state = json.loads(file["state"].tobytes())
        return Tuning(state["before"], state["history"])
