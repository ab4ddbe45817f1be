"""Cross-validation: every photo is predicted by a head that was not trained on it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import StratifiedGroupKFold

from featcache.errors import TrainingError
from featcache.evaluation.calls import call
from featcache.evaluation.scoring import decides_by_pairs, full_scores
from featcache.files import write_bytes_whole
from featcache.processor import cores


def draw_folds(
    labels: NDArray[Any], digests: NDArray[np.uint8], count: int, seed: int, classes: Sequence[str]
) -> NDArray[np.int64]:
    """Assign every row to a fold: classes are spread evenly, and byte-equal photos stay together.

    Parameters
    ----------
    labels : array of shape (n,)
    digests : array of shape (n, 32)
    count : int
        Number of folds.
    seed : int
    classes : sequence of str
        Their names, for errors.

    Returns
    -------
    array of shape (n,)
        Numbers from 0.

    Raises
    ------
    TrainingError
        A class has fewer different photos than there are folds.
    """
    groups = np.unique(digests, axis=0, return_inverse=True)[1].reshape(-1)
    for label, name in enumerate(classes):
        different = len(np.unique(groups[labels == label]))
        if different < count:
            raise TrainingError(
                f"class {name!r} has {different} different photos for {count} folds, but every fold needs "
                f"one; set folds to at most {max(different, 2)}, or add photos"
            )
    folds = np.empty(len(labels), np.int64)
    drawn = StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(labels, labels, groups)
    for fold, (_, held_out) in enumerate(drawn):
        folds[held_out] = fold
    return folds


@dataclass(frozen=True)
class HeldOut:
    """Predictions of all rows, each by a classifier that was not fitted on its fold.

    Attributes
    ----------
    folds : array of shape (n,)
    predicted : array of shape (n,)
    probabilities : array of shape (n, k), or None
    classes : array of shape (k,)
    decision : array of shape (n,) or (n, k), or None
        Decision values of classifiers without probabilities.
    """

    folds: NDArray[np.int64]
    predicted: NDArray[Any]
    probabilities: NDArray[Any] | None
    classes: NDArray[Any]
    decision: NDArray[Any] | None = field(default=None, kw_only=True)

    @classmethod
    def of(cls, fitted: Sequence[Any], X: NDArray[Any], folds: NDArray[np.int64]) -> Self:
        """Let the classifier that was fitted without a fold predict the fold's rows.

        Raises
        ------
        ClassifierError
            A classifier refuses its rows.
        """
        places = [folds == fold for fold in range(len(fitted))]

        def joined(method: str) -> NDArray[Any]:
            parts = [call(getattr(one, method), X[rows]) for one, rows in zip(fitted, places, strict=True)]
            return _joined(parts, places)

        first = fitted[0]
        probabilities = joined("predict_proba") if hasattr(first, "predict_proba") else None
        ranks = probabilities is None and hasattr(first, "decision_function") and not decides_by_pairs(first)
        decision = joined("decision_function") if ranks else None
        return cls(folds, joined("predict"), probabilities, first.classes_, decision=decision)

    def arguments(self, y: NDArray[Any]) -> tuple[Any, ...]:
        """Return the arguments of `featcache.evaluation.scores`, for the labels `y` of the rows."""
        return y, self.probabilities, self.predicted, self.classes, self.decision

    def write(self, path: Path, photos: Sequence[str], labels: NDArray[Any], classes: Sequence[str]) -> None:
        """Write a table with a line per photo: path, fold, label, prediction and probabilities.

        Raises
        ------
        StoreError
            No room or no permission.
        """
        text = io.StringIO()
        writer = csv.writer(text)
        shares = [] if self.probabilities is None else classes
        writer.writerow(["path", "fold", "label", "predicted", *shares])
        for row, photo in enumerate(photos):
            of_row = [] if self.probabilities is None else self.probabilities[row].tolist()
            names = (classes[labels[row]], classes[self.predicted[row]])
            writer.writerow([photo, self.folds[row], *names, *of_row])
        write_bytes_whole(path, text.getvalue().encode())


@dataclass(frozen=True)
class CrossValidation(HeldOut):
    """Cross-validated predictions and their scores.

    Attributes
    ----------
    scores : dict
        Of all rows together, as `full_scores` gives them, with ``folds``: the ``accuracy`` of each fold
        and their ``mean`` and ``standard_deviation`` (of a sample: n - 1).
    fitted : tuple of classifiers
        By the fold that they were not fitted on.
    """

    scores: dict[str, Any] = field(kw_only=True)
    fitted: tuple[Any, ...] = field(kw_only=True)


def cross_validate(
    head: Any, X: NDArray[Any], y: NDArray[Any], folds: NDArray[np.int64], views: int = 1
) -> CrossValidation:
    """Fit clones of `head`, each without one fold, and score them on it.

    A head that has a method ``fit_folds`` fits its clones itself (a Dense head does, as one stack); the
    clones of other heads are fitted in parallel threads.

    Parameters
    ----------
    head : classifier
        It is not changed.
    X : array of shape (n, h, w, c) or (n, c)
    y : array of shape (n,)
        Labels 0 … k - 1.
    folds : array of shape (n,)
        The same for all views of a photo.
    views : int
        Consecutive rows that are views of one photo, the plain photo first. A dense head trains on one of
        them in each epoch, other heads on all. Only plain photos are predicted and scored.

    Raises
    ------
    TrainingError
        A clone could not be trained.
    ClassifierError
        The head cannot be trained on such features.
    """
    fitted = fit_on_folds(head, X, y, folds, views)
    y, folds = y[::views], folds[::views]
    held_out = HeldOut.of(fitted, X[::views], folds)
    scores = full_scores(*held_out.arguments(y))
    scores["folds"] = _scores_by_fold(held_out.predicted == y, folds)
    return CrossValidation(**vars(held_out), scores=scores, fitted=tuple(fitted))


def fit_on_folds(
    head: Any,
    X: NDArray[Any],
    y: NDArray[Any],
    folds: NDArray[np.int64],
    views: int = 1,
    jobs: int | None = None,
) -> list[Any]:
    """Fit clones of `head`, each without one fold; the arguments are those of `cross_validate`.

    Parameters
    ----------
    jobs : int, optional
        Number of threads; default: all cores.

    Raises
    ------
    TrainingError, ClassifierError
        As `cross_validate` does.
    """
    if not hasattr(head, "fit_folds"):
        return _fitted(head, X, y, folds, jobs or cores())
    fitted: list[Any] = call(head.fit_folds, X, y, folds, views)
    failed = next((one for one in fitted if isinstance(one, TrainingError)), None)
    if failed is not None:
        raise failed
    return fitted


def cross_fit(
    fit: Callable[[NDArray[Any], NDArray[Any]], Any],
    X: NDArray[Any],
    y: NDArray[Any],
    folds: NDArray[np.int64],
) -> HeldOut:
    """Predict each fold by ``fit(X, y)`` of the other folds.

    Raises
    ------
    TrainingError, ClassifierError
        All that `fit` raises, or a classifier refuses its rows.
    """
    rest = [folds != fold for fold in range(folds.max() + 1)]
    return HeldOut.of([fit(X[rows], y[rows]) for rows in rest], X, folds)


def _scores_by_fold(correct: NDArray[np.bool_], folds: NDArray[np.int64]) -> dict[str, Any]:
    accuracies = [float(correct[folds == fold].mean()) for fold in range(folds.max() + 1)]
    return {
        "accuracy": accuracies,
        "mean": float(np.mean(accuracies)),
        "standard_deviation": float(np.std(accuracies, ddof=1)),
    }


def _fitted(head: Any, X: NDArray[Any], y: NDArray[Any], folds: NDArray[np.int64], jobs: int) -> list[Any]:
    """Fit in threads: they share the arrays, and TensorFlow, if it is loaded, does not survive a fork."""

    def fit(fold: int) -> Any:
        rows = folds != fold
        return call(clone(head).fit, X[rows], y[rows])

    return list(Parallel(n_jobs=jobs, prefer="threads")(delayed(fit)(f) for f in range(folds.max() + 1)))


def _joined(parts: Sequence[NDArray[Any]], places: Sequence[NDArray[np.bool_]]) -> NDArray[Any]:
    """Put the predictions of each fold back into the order of the rows."""
    joined = np.empty((len(places[0]), *parts[0].shape[1:]), parts[0].dtype)
    for part, rows in zip(parts, places, strict=True):
        joined[rows] = part
    return joined
