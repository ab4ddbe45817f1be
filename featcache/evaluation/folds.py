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
from featcache.evaluation.fitting import arguments_of, fit_arguments
from featcache.evaluation.scoring import decides_by_pairs, full_scores
from featcache.files import write_bytes_whole
from featcache.processor import cores


def draw_folds(
    labels: NDArray[Any],
    digests: NDArray[np.uint8],
    count: int,
    seed: int,
    classes: Sequence[str],
    groups: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Assign every row to a fold: classes are spread evenly; byte-equal photos and groups stay together.

    Parameters
    ----------
    labels : array of shape (n,)
    digests : array of shape (n, 32)
    count : int
        Number of folds.
    seed : int
    classes : sequence of str
        Their names, for errors.
    groups : int array of shape (n,), optional
        Rows of one number stay together. Byte-equal rows must be of one group.

    Returns
    -------
    array of shape (n,)
        Numbers from 0.

    Raises
    ------
    TrainingError
        A class has fewer different photos, or groups of photos, than there are folds.
    """
    what = "different photos" if groups is None else "groups of photos"
    if groups is None:
        groups = np.unique(digests, axis=0, return_inverse=True)[1].reshape(-1)
    for label, name in enumerate(classes):
        different = len(np.unique(groups[labels == label]))
        if different < count:
            raise TrainingError(
                f"class {name!r} has {different} {what} for {count} folds, but every fold needs one; set "
                f"folds to at most {max(different, 2)}, or add photos"
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

    def arguments(self, y: NDArray[Any]) -> tuple[Any, Any, Any, Any, Any]:
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
    head: Any,
    X: NDArray[Any],
    y: NDArray[Any],
    folds: NDArray[np.int64],
    views: int = 1,
    weights: NDArray[Any] | None = None,
    groups: NDArray[Any] | None = None,
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
    weights, groups : array of shape (n,), optional
        Of the rows. Clones are fitted with them where the head takes them, see
        `featcache.evaluation.fitting.fit_arguments`, and scored with them.

    Raises
    ------
    TrainingError
        A clone could not be trained.
    ClassifierError
        The head cannot be trained on such features.
    """
    fitted = fit_on_folds(head, X, y, folds, views, weights, groups)
    y, folds = y[::views], folds[::views]
    weights, groups = (None if column is None else column[::views] for column in (weights, groups))
    held_out = HeldOut.of(fitted, X[::views], folds)
    scores = full_scores(*held_out.arguments(y), weights=weights, groups=groups)
    scores["folds"] = _scores_by_fold(held_out.predicted == y, folds, weights)
    return CrossValidation(**vars(held_out), scores=scores, fitted=tuple(fitted))


def fit_on_folds(
    head: Any,
    X: NDArray[Any],
    y: NDArray[Any],
    folds: NDArray[np.int64],
    views: int = 1,
    weights: NDArray[Any] | None = None,
    groups: NDArray[Any] | None = None,
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
        return _fitted(head, X, y, folds, weights, groups, jobs or cores())
    extra = arguments_of(head.fit_folds, weights, groups)
    fitted: list[Any] = call(head.fit_folds, X, y, folds, views, **extra)
    failed = next((one for one in fitted if isinstance(one, TrainingError)), None)
    if failed is not None:
        raise failed
    return fitted


def cross_fit(
    fit: Callable[..., Any],
    X: NDArray[Any],
    y: NDArray[Any],
    folds: NDArray[np.int64],
    *columns: NDArray[Any],
) -> HeldOut:
    """Predict each fold by ``fit(X, y, *columns)`` of the other folds.

    Raises
    ------
    TrainingError, ClassifierError
        All that `fit` raises, or a classifier refuses its rows.
    """
    rest = [folds != fold for fold in range(folds.max() + 1)]
    fitted = [fit(*(column[rows] for column in (X, y, *columns))) for rows in rest]
    return HeldOut.of(fitted, X, folds)


def _scores_by_fold(
    correct: NDArray[np.bool_], folds: NDArray[np.int64], weights: NDArray[Any] | None
) -> dict[str, Any]:
    weights = np.ones(len(correct)) if weights is None else weights
    places = [folds == fold for fold in range(folds.max() + 1)]
    accuracies = [float(np.average(correct[rows], weights=weights[rows])) for rows in places]
    return {
        "accuracy": accuracies,
        "mean": float(np.mean(accuracies)),
        "standard_deviation": float(np.std(accuracies, ddof=1)),
    }


def _fitted(
    head: Any,
    X: NDArray[Any],
    y: NDArray[Any],
    folds: NDArray[np.int64],
    weights: NDArray[Any] | None,
    groups: NDArray[Any] | None,
    jobs: int,
) -> list[Any]:
    """Fit in threads: they share the arrays, and TensorFlow, if it is loaded, does not survive a fork."""

    def fit(fold: int) -> Any:
        rows = folds != fold
        columns = (None if column is None else column[rows] for column in (weights, groups))
        return call(clone(head).fit, X[rows], y[rows], **fit_arguments(head, *columns))

    return list(Parallel(n_jobs=jobs, prefer="threads")(delayed(fit)(f) for f in range(folds.max() + 1)))


def _joined(parts: Sequence[NDArray[Any]], places: Sequence[NDArray[np.bool_]]) -> NDArray[Any]:
    """Put the predictions of each fold back into the order of the rows."""
    joined = np.empty((len(places[0]), *parts[0].shape[1:]), parts[0].dtype)
    for part, rows in zip(parts, places, strict=True):
        joined[rows] = part
    return joined
