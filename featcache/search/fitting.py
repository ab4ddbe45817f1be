"""Carry trials out: scikit-learn's heads in processes beside each other, Dense heads together in a stack."""

from __future__ import annotations

import io
import math
import os
import pickle
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import joblib
import numpy as np
from joblib.externals.loky.process_executor import TerminatedWorkerError
from numpy.typing import NDArray

from featcache.errors import FeatcacheError, TrainingError
from featcache.evaluation import scores as scores_of
from featcache.evaluation.scoring import answers
from featcache.heads.dense.training import tensorflow_loaded
from featcache.heads.estimators import build_head
from featcache.recipe import HeadSettings
from featcache.search.trial import Asked, Outcome, pack
from featcache.training import UNFIT, with_class_numbers

_FAILURES = (FeatcacheError, *UNFIT, MemoryError)

_IDLE_SECONDS = 20
_WATCH_SECONDS = 1.0

Rows = tuple[NDArray[Any], NDArray[np.int64]]
Measures = Mapping[int, Mapping[str, float]]
Result = tuple[int, Outcome, Sequence[str]]
"""A trial's number, its outcome, and what was warned of meanwhile."""


@dataclass(frozen=True)
class Job:
    """What all trials of a search have in common.

    Attributes
    ----------
    train, validation : (X, y)
        Heads learn from the one and are scored on the other.
    classes : tuple of str
    metric : str
    seed : int
        Of the heads.
    scratch : str, optional
        Folder where scikit-learn's heads keep main components, which are then found once for all of them.
    views : int
        Every so many rows of `train` are views of one photo: Dense heads take one of them in each epoch.
    """

    train: Rows
    validation: Rows
    classes: tuple[str, ...]
    metric: str
    seed: int
    scratch: str | None = None
    views: int = 1

    def head(self, settings: HeadSettings) -> Any:
        """Return an unfitted head.

        Raises
        ------
        RecipeError
            The settings do not go with each other, or name a class that is not there.
        """
        head = build_head(settings, self.seed)
        head = with_class_numbers(settings, head, self.classes, self.seed)
        if settings.pca and settings.type != "dense":
            head.set_params(memory=self.scratch)
        return head


def carry_out(job: Job, batch: Sequence[Asked]) -> Iterator[Result]:
    """Fit and score the heads of a batch; those of one library come in the order in which they were asked.

    A head that cannot be trained or scored gives an outcome that says why.

    Raises
    ------
    TrainingError
        A process died.
    """
    dense = [one for one in batch if one.settings.type == "dense"]
    others = [one for one in batch if one.settings.type != "dense"]
    # the processes are at work while the stack is trained here
    beside = _in_processes(job, others) if others else iter(())
    if dense:
        yield from _in_a_stack(job, dense)
    yield from beside


def _in_processes(job: Job, batch: Sequence[Asked]) -> Iterator[Result]:
    """Begin to fit in loky's processes: much of scikit-learn holds Python's lock, so threads would queue.

    They are started anew, not forked, which TensorFlow would not survive. Each one's linear algebra gets one
    thread, and large arrays are mapped into all of them: "c" lets a head write into its own copy of a page.
    """
    parallel = joblib.Parallel(
        n_jobs=joblib.cpu_count(),
        backend="loky",
        return_as="generator",
        mmap_mode="c",
        idle_worker_timeout=_IDLE_SECONDS,
        initializer=_end_with,
        initargs=(os.getpid(),),
    )
    return _while_they_live(parallel(joblib.delayed(_fit_alone)(job, one) for one in batch))


def _end_with(parent: int) -> None:
    """End this process soon after its parent; a killed parent leaves some of loky's waiting for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _while_they_live(results: Iterator[Result]) -> Iterator[Result]:
    try:
        yield from results
    except TerminatedWorkerError:
        raise TrainingError(
            "a process that trained heads died, most likely for want of memory; run again with "
            "LOKY_MAX_CPU_COUNT=1, what was finished is kept"
        ) from None


def _fit_alone(job: Job, asked: Asked) -> Result:
    with _heard() as heard:
        started = time.monotonic()
        try:
            head = job.head(asked.settings)
            head.fit(*job.train)
            outcome = _scored(job, head, Outcome(fit_seconds=time.monotonic() - started))
        except _FAILURES as error:
            outcome = _failed(error)
    return asked.number, outcome, heard


def _in_a_stack(job: Job, batch: Sequence[Asked]) -> Iterator[Result]:
    tensorflow_loaded()  # its import is no part of the training
    built = {one.number: _head_or_error(job, one.settings) for one in batch}
    heads = [head for head in built.values() if not isinstance(head, Exception)]
    halving = Halving([head.epochs for head in heads], job.metric)
    started = time.monotonic()
    with _heard() as heard:
        errors = _fit_together(job, heads, halving)
    share = (time.monotonic() - started) / max(1, len(heads))
    position = 0
    for number, head in built.items():
        if isinstance(head, Exception):
            yield number, _failed(head), ()
            continue
        with _heard() as scoring:
            outcome = _dense_outcome(job, head, errors[position], position in halving.stopped, share)
        yield number, outcome, [*heard, *scoring]
        position += 1


def _head_or_error(job: Job, settings: HeadSettings) -> Any:
    try:
        return job.head(settings)
    except _FAILURES as error:
        return error


def _fit_together(job: Job, heads: Sequence[Any], halving: Halving) -> Sequence[Exception | None]:
    from featcache.heads.dense.stack import fit_together

    try:
        return fit_together(
            heads, *job.train, validation_data=job.validation, views=job.views, losers=halving
        )
    except _FAILURES as error:
        if len(heads) < 2:
            return [error] * len(heads)
        # one head that does not go with the data keeps all from being trained: find it
        return [_fit_together(job, [head], Halving([head.epochs], job.metric))[0] for head in heads]


def _dense_outcome(job: Job, head: Any, error: Exception | None, stopped: bool, seconds: float) -> Outcome:
    if error is not None:
        return _failed(error)
    try:
        return _scored(job, head, Outcome(fit_seconds=seconds, epochs=head.n_iter_, stopped=stopped))
    except _FAILURES as failure:
        return _failed(failure)


def _scored(job: Job, head: Any, outcome: Outcome) -> Outcome:
    asked = answers(head, *job.validation)
    scores = scores_of(*asked)
    value = scores[job.metric]
    if value is None or not math.isfinite(value):
        raise ValueError(f"it has no {job.metric} on these validation photos")
    y_true, _, predicted, *_ = asked
    correct = pack(np.asarray(predicted) == y_true)
    return replace(outcome, value=value, scores=scores, size=size_of(head), correct=correct)


def _failed(error: Exception) -> Outcome:
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return Outcome(reason=first_line)


@contextmanager
def _heard() -> Iterator[list[str]]:
    """Collect the first line of every warning; a search would write the same one a hundred times."""
    heard: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        yield heard
    lines = (str(warning.message).strip().splitlines()[0] for warning in caught)
    heard.extend(dict.fromkeys(lines))


class Halving:
    """Decides which heads of a stack to stop: after a quarter and a half of the epochs, the worse half.

    Successive halving: Jamieson and Talwalkar, Non-stochastic best arm identification and hyperparameter
    optimization, AISTATS 2016.

    Parameters
    ----------
    epochs : sequence of int
        Of each head.
    metric : str
        Heads are compared by ``val_accuracy`` and then ``val_loss``; for "log_loss" the other way round.

    Attributes
    ----------
    stopped : set of int
        Positions of the heads that were stopped.
    """

    FEWEST = 8
    """Heads that must have begun together: of fewer, a half is too few to find the best in."""

    def __init__(self, epochs: Sequence[int], metric: str) -> None:
        self.stopped: set[int] = set()
        self._epochs = epochs
        self._by_loss = metric == "log_loss"
        self._began: dict[int, int] = {}

    def __call__(self, epoch: int, measures: Measures) -> list[int]:
        """Return the positions of the heads to stop after `epoch`; `measures` are of those in one stack."""
        for position in measures:
            self._began.setdefault(position, len(measures))
        if not measures or max(self._began[position] for position in measures) < self.FEWEST:
            return []
        whole = max(self._epochs[position] for position in measures)
        if epoch >= whole or epoch not in (whole // 4, whole // 2):
            return []
        ranked = sorted(measures, key=lambda position: (*self._badness(measures[position]), position))
        losers = ranked[(len(ranked) + 1) // 2 :]
        self.stopped.update(losers)
        return losers

    def _badness(self, measured: Mapping[str, float]) -> tuple[float, float]:
        loss, errors = measured["val_loss"], -measured["val_accuracy"]
        return (loss, errors) if self._by_loss else (errors, loss)


def size_of(head: Any) -> int:
    """Return how many numbers a fitted head holds: weights, but also support vectors or remembered rows.

    All arrays that pickling would write are counted, the scaler's too; so trees and neighbours can be
    compared with networks. Nothing is written.
    """
    counter = _ArrayCounter(io.BytesIO())
    counter.dump(head)
    return counter.count


class _ArrayCounter(pickle.Pickler):
    count = 0

    def persistent_id(self, value: Any) -> str | None:
        if not isinstance(value, np.ndarray):
            return None
        self.count += value.size * len(value.dtype.names or "1")
        return "counted"
