"""The training loop of fine-tuning, from features of the boundary.

It gives the same result as end-to-end training: what is frozen gives the same values in every epoch. All
layers of the network run in inference mode, so BatchNorm keeps its statistics; only the head's dropout
is active.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from featcache.errors import TrainingError
from featcache.evaluation import scores
from featcache.finetuning.checkpoints import Checkpoints, History, Measures
from featcache.finetuning.top import Top
from featcache.heads.dense.feed import Feed, Rows
from featcache.runtime import keras, tensorflow

_EVALUATED_ROWS = 64


@dataclass(frozen=True)
class FinetuneParams:
    """Hyperparameters of a fine-tuning.

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


def train_top(
    top: Top,
    feeds: Mapping[str, Feed],
    params: FinetuneParams,
    checkpoints: Path,
    progress: Callable[[int], None] = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
    metric: str = "log_loss",
) -> History:
    """Train with a checkpoint after each epoch; resume after the last one that is there.

    At the end `top` has the weights of the best epoch.

    Parameters
    ----------
    top : Top
    feeds : mapping of str to Feed
        Flattened features of the boundary, or pixels: "train", "validation", and optionally "test", to
        be evaluated after every epoch as well.
    params : FinetuneParams
    checkpoints : Path
        Folder of this very fine-tuning: other settings, heads or data must have another one.
    progress : callable, optional
        Called with the number of completed epochs.
    note : callable, optional
        Called with one sentence for each checkpoint that cannot be used.
    metric : str
        What the best epoch is chosen by on validation: "log_loss", "accuracy", or another score of
        `featcache.evaluation.scores`, which is then measured as well.

    Raises
    ------
    TrainingError
        The loss is no longer finite, or the metric is not defined on these validation photos.
    StoreError
        A checkpoint cannot be written.
    """
    optimizer = _optimizer(params)
    optimizer.build(top.trainable)
    step, measure = _compiled(top, optimizer)
    variables = {f"weight_{number}": one for number, one in enumerate(top.variables)}
    variables |= {f"optimizer_{number}": one for number, one in enumerate(optimizer.variables)}
    saved = Checkpoints(checkpoints, variables, note, metric)
    validation = _Validation(measure, feeds["validation"], metric, top.binary)
    history = saved.resume() or History(validation(), {}, metric)
    progress(history.epochs)
    while history.epochs < params.epochs:
        measures = _epoch(step, feeds["train"], params, history.epochs)
        measures |= {f"val_{name}": value for name, value in validation().items()}
        if "test" in feeds:
            measures |= {f"test_{name}": value for name, value in _measured(measure, feeds["test"]).items()}
        if not np.isfinite(list(measures.values())).all():
            raise TrainingError(
                f"fine-tuning diverged in epoch {history.epochs + 1} of {params.epochs}: the loss is no "
                f"longer finite; finetune.learning_rate is {params.learning_rate:g}, use a smaller one"
            )
        history.append(measures)
        saved.save(history)
        progress(history.epochs)
    saved.load(history.best_epoch)
    return history


def _optimizer(params: FinetuneParams) -> Any:
    kinds = keras().optimizers
    momentum = {} if params.optimizer == "adam" else {"momentum": params.momentum}
    kind = {"adam": kinds.Adam, "rmsprop": kinds.RMSprop, "sgd": kinds.SGD}[params.optimizer]
    return kind(params.learning_rate, **momentum)


def _compiled(top: Top, optimizer: Any) -> tuple[Any, Any]:
    """Return the functions which train on a batch and which measure one.

    Both return the weighted sums of the losses and of the right answers, the second one also the logits. As
    in Dense heads, the loss of a batch is divided by its rows and not by their weights.
    """
    tf = tensorflow()

    def losses(logits: Any, labels: Any) -> tuple[Any, Any]:
        if top.binary:
            logits = logits[:, 0]
            each = tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(labels, tf.float32), logits)
            return each, tf.cast(logits > 0, tf.int32) == labels
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        return each, tf.argmax(logits, -1, output_type=tf.int32) == labels

    def step(rows: Any, labels: Any, weights: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            each, right = losses(top(rows, training=True), labels)
            each *= weights
            loss = tf.reduce_mean(each)
        optimizer.apply(tape.gradient(loss, top.trainable), top.trainable)
        return tf.reduce_sum(each), tf.reduce_sum(tf.cast(right, tf.float32) * weights)

    def measure(rows: Any, labels: Any, weights: Any) -> tuple[Any, Any, Any]:
        logits = top(rows, training=False)
        each, right = losses(logits, labels)
        return tf.reduce_sum(each * weights), tf.reduce_sum(tf.cast(right, tf.float32) * weights), logits

    return tf.function(step, reduce_retracing=True), tf.function(measure, reduce_retracing=True)


def _epoch(step: Any, feed: Feed, params: FinetuneParams, epoch: int) -> Measures:
    # an order of its own for each epoch, so that a run that continues takes the same
    rng = np.random.default_rng([params.seed, epoch])
    return _means(step, _batches(feed.shuffled(rng, params.batch_size), params.batch_size))


def _measured(measure: Any, feed: Feed) -> Measures:
    pieces = ((rows, np.arange(len(rows.labels), dtype=np.int32)) for rows in feed.in_order())
    return _means(measure, _batches(pieces, _EVALUATED_ROWS))


class _Validation:
    """Measures the validation photos: loss, accuracy and, where it is another one, the metric."""

    def __init__(self, measure: Any, feed: Feed, metric: str, binary: bool) -> None:
        self._measure, self._feed, self._binary = measure, feed, binary
        self._metric = None if metric in ("log_loss", "accuracy") else metric

    def __call__(self) -> Measures:
        if self._metric is None:
            return _measured(self._measure, self._feed)
        logits: list[NDArray[Any]] = []
        columns: list[tuple[Any, Any]] = []

        def remembering(rows: Any, labels: Any, weights: Any) -> tuple[Any, ...]:
            measured: tuple[Any, ...] = self._measure(rows, labels, weights)
            logits.append(np.asarray(measured[2]))
            columns.append((labels, weights))
            return measured

        measures = _measured(remembering, self._feed)
        labels, weights = (np.concatenate(column) for column in zip(*columns, strict=True))
        return measures | {self._metric: self._score(np.concatenate(logits), labels, weights)}

    def _score(self, logits: NDArray[Any], labels: NDArray[Any], weights: NDArray[Any]) -> float:
        if self._binary:
            logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
        if not np.isfinite(logits).all():
            return float("nan")  # diverged, which is said with the loss
        probabilities = softmax(logits.astype(np.float64), axis=1)
        classes = np.arange(probabilities.shape[1])
        predicted = probabilities.argmax(axis=1)
        value = scores(labels, probabilities, predicted, classes, weights=weights)[str(self._metric)]
        if value is None:
            raise TrainingError(
                f"selection.metric = {self._metric!r} is not defined on these validation photos: some class "
                "has none; add some, or choose another metric"
            )
        return float(value)


_Batch = tuple[NDArray[Any], NDArray[np.int32], NDArray[Any]]
"""Features, labels and sample weights."""


def _batches(pieces: Iterator[tuple[Rows, NDArray[np.int32]]], size: int) -> Iterator[_Batch]:
    for rows, order in pieces:
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            yield rows.features[chosen], rows.labels[chosen], rows.weights[chosen]


def _means(function: Any, batches: Iterator[_Batch]) -> Measures:
    """Return the weighted mean loss and accuracy that `function` gives over all batches."""
    loss = right = whole = 0.0
    for features, labels, weights in batches:
        of_batch = function(features, labels, weights)
        loss, right, whole = (
            loss + float(of_batch[0]),
            right + float(of_batch[1]),
            whole + float(weights.sum()),
        )
    return {"loss": loss / whole, "accuracy": right / whole}
