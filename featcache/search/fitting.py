"""Runs trials: scikit-learn's heads in parallel processes, Dense heads together in a stack."""

from __future__ import annotations

import io
import math
import os
import pickle
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray

from featcache.errors import FeatcacheError, TrainingError
from featcache.evaluation import scores as scores_of
from featcache.evaluation.calls import call, collected_warnings, first_line
from featcache.evaluation.folds import HeldOut, fit_on_folds
from featcache.evaluation.predictions import Predictions
from featcache.evaluation.scoring import predictions_of
from featcache.heads.dense.training import tensorflow_loaded
from featcache.heads.estimators import build_head
from featcache.processor import cores
from featcache.recipe import HeadSettings
from featcache.search.private import TerminatedWorkerError, loky_options
from featcache.search.trial import Outcome, TrialRequest, pack
from featcache.training import with_class_numbers
from featcache.training.sampling import UNIFORM, Sampling, fit_options

_FAILURES = (FeatcacheError, MemoryError)

_IDLE_SECONDS = 20
_WATCH_SECONDS = 1.0

Rows = tuple[NDArray[Any], NDArray[np.int64]]
Measures = Mapping[int, Mapping[str, float]]
Result = tuple[int, Outcome, Sequence[str]]
"""A trial's number, its outcome, and the warnings that it gave."""


@dataclass(frozen=True)
class Job:
    """What all trials of a study share.

    Attributes
    ----------
    train : (X, y)
        What heads are trained on.
    validation : (X, y), or None
        What they are scored on; None where they are cross-validated on `train`.
    classes : tuple of str
    metric : str
    seed : int
        Random state of the heads.
    scratch : str, optional
        Cache folder for principal components, which are then computed once for all scikit-learn heads.
    views : int
        Number of consecutive rows of `train` that are views of one photo: Dense heads train on one of them in
        each epoch.
    folds : int array of shape (n,), optional
        For cross-validation: the fold of each photo of `train`.
    sampling, scored_sampling : Sampling
        Weights and groups of the photos of `train`, and of those that heads are scored on.
    """

    train: Rows
    validation: Rows | None
    classes: tuple[str, ...]
    metric: str
    seed: int
    scratch: str | None = None
    views: int = 1
    folds: NDArray[np.int64] | None = None
    sampling: Sampling = UNIFORM
    scored_sampling: Sampling = UNIFORM

    @property
    def of_rows(self) -> Sampling:
        """Weights and groups of the rows of `train`, all views of its photos."""
        return self.sampling.of_views(self.views)

    @property
    def scored_labels(self) -> NDArray[np.int64]:
        """Labels of the photos that heads are scored on."""
        return self.train[1][:: self.views] if self.validation is None else self.validation[1]

    def head(self, settings: HeadSettings) -> Any:
        """Return an unfitted head.

        Raises
        ------
        RecipeError
            The settings contradict each other, or name an unknown class.
        """
        head = build_head(settings, self.seed)
        head = with_class_numbers(settings, head, self.classes, self.seed)
        if settings.pca and settings.type != "dense":
            head.set_params(memory=self.scratch)
        return head


def run_trials(job: Job, batch: Sequence[TrialRequest]) -> Iterator[Result]:
    """Fit and score the heads of a batch; results of one library come in the order of the requests.

    For a head that cannot be trained or scored, the outcome has the reason.

    Raises
    ------
    TrainingError
        A process died.
    """
    dense = [one for one in batch if one.settings.type == "dense"]
    others = [one for one in batch if one.settings.type != "dense"]
    # the processes run while the stack is trained here
    in_processes = _in_processes(job, others) if others else iter(())
    if dense:
        yield from _in_a_stack(job, dense)
    yield from in_processes


def _in_processes(job: Job, batch: Sequence[TrialRequest]) -> Iterator[Result]:
    """Start fitting in loky processes: much of scikit-learn holds the GIL, so threads would wait.

    The processes are spawned, because TensorFlow does not survive a fork. Each gets one thread for linear
    algebra. Large arrays are memory-mapped; "c" is copy-on-write, so that a head may change its input.
    """
    parallel = joblib.Parallel(
        n_jobs=cores(),
        backend="loky",
        return_as="generator",
        mmap_mode="c",
        **loky_options(_IDLE_SECONDS, _end_with, os.getpid()),
    )
    return _unless_a_process_died(parallel(joblib.delayed(_fit_alone)(job, one) for one in batch))


def _end_with(parent: int) -> None:
    """Exit soon after the parent process; if it is killed, some loky workers would otherwise wait forever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _unless_a_process_died(results: Iterator[Result]) -> Iterator[Result]:
    try:
        yield from results
    except TerminatedWorkerError:
        raise TrainingError(
            "a process that trained heads died, most likely because memory ran out; run again with "
            "LOKY_MAX_CPU_COUNT=1, finished trials are kept"
        ) from None


def _fit_alone(job: Job, request: TrialRequest) -> Result:
    with collected_warnings() as warned:
        started = time.monotonic()
        try:
            head = job.head(request.settings)
            columns = job.of_rows.columns
            if job.folds is None:
                call(head.fit, *job.train, **fit_options(head, job.of_rows))
            else:
                folds = job.folds.repeat(job.views)
                head = fit_on_folds(head, *job.train, folds, job.views, jobs=1, **columns)
            outcome = _scored(job, head, Outcome(fit_seconds=time.monotonic() - started))
        except _FAILURES as error:
            outcome = _failed(error)
    return request.number, outcome, warned


def _in_a_stack(job: Job, batch: Sequence[TrialRequest]) -> Iterator[Result]:
    tensorflow_loaded()  # its import is no part of the training
    if job.folds is not None:
        yield from _in_stacks_of_folds(job, batch)
        return
    built = {one.number: _head_or_error(job, one.settings) for one in batch}
    heads = [head for head in built.values() if not isinstance(head, Exception)]
    halving = Halving([head.epochs for head in heads], job.metric)
    started = time.monotonic()
    with collected_warnings() as warned:
        errors = _fit_together(job, heads, halving)
    share = (time.monotonic() - started) / max(1, len(heads))
    position = 0
    for number, head in built.items():
        if isinstance(head, Exception):
            yield number, _failed(head), ()
            continue
        with collected_warnings() as warned_in_scoring:
            outcome = _dense_outcome(job, head, errors[position], position in halving.stopped, share)
        yield number, outcome, [*warned, *warned_in_scoring]
        position += 1


def _in_stacks_of_folds(job: Job, batch: Sequence[TrialRequest]) -> Iterator[Result]:
    """Cross-validate Dense heads; none is pruned, since a stack of folds has no common validation photos."""
    from featcache.heads.dense.stack import fit_folds

    assert job.folds is not None
    built = {one.number: _head_or_error(job, one.settings) for one in batch}
    heads = {number: head for number, head in built.items() if not isinstance(head, Exception)}
    folds = job.folds.repeat(job.views)

    def fit(some: Sequence[Any]) -> list[Any]:
        try:
            return call(fit_folds, some, *job.train, folds, job.views, sample_weight=job.of_rows.weights)
        except _FAILURES as error:
            # one head that cannot be trained fails the whole stack: find it
            return [error] if len(some) < 2 else [fitted for one in some for fitted in fit([one])]

    started = time.monotonic()
    with collected_warnings() as warned:
        fitted = dict(zip(heads, fit(list(heads.values())) if heads else [], strict=True))
    share = (time.monotonic() - started) / max(1, len(heads))
    for number, head in built.items():
        yield number, _outcome_of_folds(job, fitted.get(number, head), share), warned


def _outcome_of_folds(job: Job, fitted: Any, seconds: float) -> Outcome:
    """Score the heads of the folds; in place of them, or of one, may stand why there is none."""
    failure = next((one for one in _as_list(fitted) if isinstance(one, Exception)), None)
    if failure is not None:
        return _failed(failure)
    try:
        epochs = max(head.n_iter_ for head in fitted)
        return _scored(job, fitted, Outcome(fit_seconds=seconds, epochs=epochs))
    except _FAILURES as error:
        return _failed(error)


def _as_list(fitted: Any) -> Sequence[Any]:
    return fitted if isinstance(fitted, list) else [fitted]


def _head_or_error(job: Job, settings: HeadSettings) -> Any:
    try:
        return job.head(settings)
    except _FAILURES as error:
        return error


def _fit_together(job: Job, heads: Sequence[Any], halving: Halving) -> Sequence[Exception | None]:
    from featcache.heads.dense.stack import fit_together

    try:
        return call(
            fit_together,
            heads,
            *job.train,
            validation_data=_validation_data(job),
            views=job.views,
            prune=halving,
            sample_weight=job.of_rows.weights,
            groups=job.of_rows.groups,
        )
    except _FAILURES as error:
        if len(heads) < 2:
            return [error] * len(heads)
        # one head that cannot be trained fails the whole stack: find it
        return [_fit_together(job, [head], Halving([head.epochs], job.metric))[0] for head in heads]


def _validation_data(job: Job) -> tuple[Any, ...] | None:
    weights = job.scored_sampling.weights
    return job.validation if job.validation is None or weights is None else (*job.validation, weights)


def _dense_outcome(job: Job, head: Any, error: Exception | None, stopped: bool, seconds: float) -> Outcome:
    if error is not None:
        return _failed(error)
    try:
        return _scored(job, head, Outcome(fit_seconds=seconds, epochs=head.n_iter_, stopped=stopped))
    except _FAILURES as failure:
        return _failed(failure)


def _scored(job: Job, fitted: Any, outcome: Outcome) -> Outcome:
    """Score a fitted head on validation, or the heads of all folds, each on its own fold."""
    arguments = _predictions(job, fitted)
    columns = job.scored_sampling.columns
    scores = scores_of(*arguments, **columns)
    value = scores[job.metric]
    if value is None or not math.isfinite(value):
        raise TrainingError(f"it has no {job.metric} on these photos")
    given = Predictions.of(*arguments, **columns)
    return replace(
        outcome,
        value=value,
        scores=scores,
        size=size_of(_as_list(fitted)[0]),
        correct=pack(given.predicted == given.true),
        constant=len(np.unique(given.predicted)) == 1 < len(np.unique(given.true)),
        predictions=given,
    )


def _predictions(job: Job, fitted: Any) -> tuple[Any, Any, Any, Any, Any]:
    """Return the arguments of `scores`."""
    if job.folds is None:
        assert job.validation is not None
        return predictions_of(fitted, *job.validation)
    X, y = (array[:: job.views] for array in job.train)
    return HeldOut.of(fitted, X, job.folds).arguments(y)


def _failed(error: Exception) -> Outcome:
    return Outcome(reason=first_line(error))


class Halving:
    """Successive halving: prunes the worse half of a stack after a quarter and after half of the epochs.

    Jamieson and Talwalkar, Non-stochastic best arm identification and hyperparameter
    optimization, AISTATS 2016.

    Parameters
    ----------
    epochs : sequence of int
        Of each head.
    metric : str
        Heads are compared by ``val_accuracy``, then ``val_loss``; for "log_loss" in reverse order.

    Attributes
    ----------
    stopped : set of int
        Positions of the pruned heads.
    """

    FEWEST = 8
    """Smallest stack that is pruned: half of a smaller one is too few to contain the best reliably."""

    def __init__(self, epochs: Sequence[int], metric: str) -> None:
        self.stopped: set[int] = set()
        self._epochs = epochs
        self._by_loss = metric == "log_loss"
        self._began: dict[int, int] = {}

    def __call__(self, epoch: int, measures: Measures) -> list[int]:
        """Return the positions of the heads to prune after `epoch`; `measures` has the heads of one stack."""
        for position in measures:
            self._began.setdefault(position, len(measures))
        if not measures or max(self._began[position] for position in measures) < self.FEWEST:
            return []
        whole = max(self._epochs[position] for position in measures)
        if epoch >= whole or epoch not in (whole // 4, whole // 2):
            return []
        ranked = sorted(measures, key=lambda position: (*self._badness(measures[position]), position))
        pruned = ranked[(len(ranked) + 1) // 2 :]
        self.stopped.update(pruned)
        return pruned

    def _badness(self, measured: Mapping[str, float]) -> tuple[float, float]:
        loss, errors = measured["val_loss"], -measured["val_accuracy"]
        return (loss, errors) if self._by_loss else (errors, loss)


def size_of(head: Any) -> int:
    """Return how many numbers a fitted head has: weights, support vectors, stored training rows.

    All arrays that pickling would write are counted, so that trees and nearest neighbours compare with
    networks. Nothing is written.
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
