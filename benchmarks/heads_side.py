"""One side's training in a process of its own.

``python -m benchmarks.heads_side SIDE JOB [--quick]`` prints one JSON line. Every side trains twice: the
first time it traces what it trains, the second time it starts anew with everything traced. Before the
clock starts it has trained a head of another shape, so that imports and first calls are not counted.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, Protocol

from benchmarks.heads_jobs import WARM_UP, Head, Job, draw, jobs
from benchmarks.side import print_line


class Side(Protocol):
    """How one side trains a job's heads."""

    def train(self) -> list[float]:
        """Train and return every head's validation accuracy after its last epoch."""

    def rewind(self) -> None:
        """Make ready to train once more from new weights; never timed."""


class Featcache:
    """featcache keeps what it traced by itself, so training once more is the same call."""

    def __init__(self, job: Job) -> None:
        from featcache.heads.dense.head import DenseHead

        self._job, self._kind, self._fit = job, DenseHead, _trainer(job)
        self._rows, self._held_out = draw(job)

    def train(self) -> list[float]:
        heads = [self._head(head) for head in self._job.heads]
        for failure in self._fit(heads, *self._rows, validation_data=self._held_out):
            if failure is not None:
                raise failure
        return [head.history_["val_accuracy"][-1] for head in heads]

    def rewind(self) -> None:
        pass

    def _head(self, head: Head) -> Any:
        return self._kind(
            units=head.units,
            dropout=head.dropout,
            learning_rate=head.learning_rate,
            l2=head.l2,
            epochs=self._job.epochs,
            batch_size=self._job.batch_size,
            random_state=0,
        )


def _trainer(job: Job) -> Callable[..., Any]:
    if len(job.heads) == 1:
        return _fit_one
    from featcache.heads.dense.stack import fit_together

    return fit_together


def _fit_one(heads: list[Any], X: Any, y: Any, validation_data: Any) -> list[None]:
    heads[0].fit(X, y, validation_data=validation_data)
    return [None]


class Keras:
    """A Sequential model for every head, compiled and fit, one after the other, as in Keras's guides."""

    def __init__(self, job: Job) -> None:
        import keras

        keras.utils.set_random_seed(0)
        self._job = job
        self._rows, self._held_out = draw(job)
        self._models: dict[Head, Any] = {}

    def train(self) -> list[float]:
        return [self._fit(head) for head in self._job.peer_heads]

    def rewind(self) -> None:
        """Give every traced model the weights and the optimizer of a new one."""
        for head, model in self._models.items():
            new = self._build(head)
            model.set_weights(new.get_weights())
            new.optimizer.build(new.trainable_variables)
            for old, value in zip(model.optimizer.variables, new.optimizer.variables, strict=True):
                old.assign(value)

    def _build(self, head: Head) -> Any:
        import keras
        from keras import layers

        penalty = keras.regularizers.L2(head.l2) if head.l2 else None
        model = keras.Sequential([keras.Input((self._job.features,))])
        for units in head.units:
            model.add(layers.Dense(units, activation="relu", kernel_regularizer=penalty))
            model.add(layers.Dropout(head.dropout))
        if not head.units and head.dropout:
            model.add(layers.Dropout(head.dropout))
        model.add(layers.Dense(1, activation="sigmoid", kernel_regularizer=penalty))
        optimizer = keras.optimizers.Adam(learning_rate=head.learning_rate)
        model.compile(optimizer=optimizer, loss="binary_crossentropy", metrics=["accuracy"])
        return model

    def _fit(self, head: Head) -> float:
        if head not in self._models:
            self._models[head] = self._build(head)
        history = self._models[head].fit(
            *self._rows,
            epochs=self._job.epochs,
            batch_size=self._job.batch_size,
            validation_data=self._held_out,
            verbose=0,
        )
        return float(history.history["val_accuracy"][-1])


SIDES: dict[str, Callable[[Job], Side]] = {"keras": Keras, "featcache": Featcache}


def measure(side: Side) -> dict[str, Any]:
    """Return the seconds of training with tracing and without it, and the heads' validation accuracy."""
    first, _ = _timed(side.train)
    side.rewind()
    seconds, accuracy = _timed(side.train)
    return {"first": first, "seconds": seconds, "accuracy": [round(value, 4) for value in accuracy]}


def _timed(train: Callable[[], list[float]]) -> tuple[float, list[float]]:
    started = time.perf_counter()
    accuracy = train()
    return round(time.perf_counter() - started, 4), accuracy


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.heads_side", description=__doc__)
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("job")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    (job,) = jobs([options.job], options.quick)
    side = SIDES[options.side]
    side(WARM_UP).train()
    print_line(measure(side(job)))


if __name__ == "__main__":
    main()
