"""Cross-validation: every photo is predicted by a head that was not trained on it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, cpu_count, delayed
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import StratifiedGroupKFold

from featcache.errors import TrainingError
from featcache.evaluation import full_scores
from featcache.files import write_bytes_whole

OUT_OF_FOLD = "out_of_fold.csv"


def draw_folds(
    labels: NDArray[Any], digests: NDArray[np.uint8], count: int, seed: int, classes: Sequence[str]
) -> NDArray[np.int64]:
    """Draw a fold for every row: each class is spread evenly, and byte-equal photos stay together.

    Parameters
    ----------
    labels : array of shape (n,)
    digests : array of shape (n, 32)
    count : int
        How many folds.
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
                f"class {name!r} has {different} different photos for {count} folds, and every fold needs "
                f"one; set folds to at most {max(different, 2)}, or add photos"
            )
    folds = np.empty(len(labels), np.int64)
    drawn = StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(labels, labels, groups)
    for fold, (_, held_out) in enumerate(drawn):
        folds[held_out] = fold
    return folds


@dataclass(frozen=True)
class CrossValidation:
    """What the heads of all folds said of the rows that they were not trained on.

    Attributes
    ----------
    folds : array of shape (n,)
    predicted : array of shape (n,)
    probabilities : array of shape (n, k), or None
    scores : dict
        Of all rows together, as `full_scores` gives them, with ``folds``: the ``accuracy`` of each fold
        and their ``mean`` and ``standard_deviation`` (of a sample: n - 1).
    """

    folds: NDArray[np.int64]
    predicted: NDArray[Any]
    probabilities: NDArray[Any] | None
    scores: dict[str, Any]

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


def cross_validate(
    head: Any, X: NDArray[Any], y: NDArray[Any], folds: NDArray[np.int64], views: int = 1
) -> CrossValidation:
    """Fit clones of `head`, each without one fold, and score them on it.

    A head that has a method ``fit_folds`` fits its clones itself (a Dense head does, as one stack); the
    clones of others are fitted in threads beside each other.

    Parameters
    ----------
    head : classifier
        It stays as it is.
    X : array of shape (n, h, w, c) or (n, c)
    y : array of shape (n,)
        Labels 0 … k - 1.
    folds : array of shape (n,)
        One for all views of a photo.
    views : int
        Every so many rows are views of one photo, the plain one first. A dense head takes one of them in
        each epoch, others take all as rows of their own. Only plain photos are predicted and scored.

    Raises
    ------
    TrainingError
        A clone could not be trained.
    ValueError
        The head cannot be trained on such features.
    """
    fits_together = hasattr(head, "fit_folds")
    fitted: list[Any] = head.fit_folds(X, y, folds, views) if fits_together else _fitted(head, X, y, folds)
    failed = next((one for one in fitted if isinstance(one, TrainingError)), None)
    if failed is not None:
        raise failed
    X, y, folds = X[::views], y[::views], folds[::views]
    held_out = [folds == fold for fold in range(len(fitted))]
    predicted = _joined([one.predict(X[rows]) for one, rows in zip(fitted, held_out, strict=True)], held_out)
    probabilities = None
    if hasattr(fitted[0], "predict_proba"):
        probabilities = _joined(
            [one.predict_proba(X[rows]) for one, rows in zip(fitted, held_out, strict=True)], held_out
        )
    scores = full_scores(y, probabilities, predicted, fitted[0].classes_)
    accuracies = [float((predicted[rows] == y[rows]).mean()) for rows in held_out]
    scores["folds"] = {
        "accuracy": accuracies,
        "mean": float(np.mean(accuracies)),
        "standard_deviation": float(np.std(accuracies, ddof=1)),
    }
    return CrossValidation(folds, predicted, probabilities, scores)


def _fitted(head: Any, X: NDArray[Any], y: NDArray[Any], folds: NDArray[np.int64]) -> list[Any]:
    """Fit in threads: the arrays are shared, and TensorFlow, if it is loaded, survives no fork."""

    def fit(fold: int) -> Any:
        rows = folds != fold
        return clone(head).fit(X[rows], y[rows])

    return list(
        Parallel(n_jobs=cpu_count(), prefer="threads")(delayed(fit)(f) for f in range(folds.max() + 1))
    )


def _joined(parts: Sequence[NDArray[Any]], places: Sequence[NDArray[np.bool_]]) -> NDArray[Any]:
    """Put what was said of each fold back into the order of the rows."""
    joined = np.empty((len(places[0]), *parts[0].shape[1:]), parts[0].dtype)
    for part, rows in zip(parts, places, strict=True):
        joined[rows] = part
    return joined
