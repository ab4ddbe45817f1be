"""Learning curves: how the error of a classifier falls with the number of training photos."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray

from featcache.errors import TrainingError
from featcache.evaluation.calls import call, first_line
from featcache.evaluation.fitting import fit_arguments
from featcache.evaluation.power_law import Forecast, forecast, mean_errors
from featcache.evaluation.predictions import Predictions
from featcache.evaluation.scoring import predictions_of
from featcache.processor import cores

FRACTIONS = (0.125, 0.25, 0.5, 1.0)
DRAWS = 5
_FEWEST_GROUPS = 2
_FEWEST_SIZES = 3

_Floats = NDArray[np.float64]
_Rows = NDArray[np.intp]


class Scored(NamedTuple):
    """Photos: features (m, ...), labels (m,), groups (m,), and where photos have any their weights (m,)."""

    X: NDArray[Any]
    y: NDArray[np.int64]
    groups: NDArray[np.int64]
    weights: NDArray[np.float64] | None = None


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """Accuracy and log loss by number of training photos.

    Attributes
    ----------
    photos : float64 array of shape (s,)
        Training photos, the mean over the draws; increasing.
    accuracy : float64 array of shape (s,)
        The mean over the draws.
    log_loss : float64 array of shape (s,), or None
        None for heads without probabilities.
    n : int
        Photos that are scored at every size.
    draws : int
        Draws of the training photos at every size but the largest; or the number of folds.
    in_folds : bool
        Whether the photos were scored in folds, rather than on validation.
    error_forecast, log_loss_forecast : Forecast or None
        What twice as many photos would give, of the share of errors and of the log loss; None with fewer than
        three sizes.
    skipped : tuple of str
        The sizes at which the head could not be trained, with reasons.
    """

    photos: _Floats
    accuracy: _Floats
    log_loss: _Floats | None
    n: int
    draws: int
    in_folds: bool
    error_forecast: Forecast | None
    log_loss_forecast: Forecast | None
    skipped: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the curve as JSON-ready data."""
        forecasts = {"error": self.error_forecast, "log_loss": self.log_loss_forecast}
        return {
            "photos": np.round(self.photos, 1).tolist(),
            "accuracy": self.accuracy.tolist(),
            "log_loss": None if self.log_loss is None else self.log_loss.tolist(),
            "n": self.n,
            "draws": self.draws,
            "scored_on": "folds" if self.in_folds else "validation",
            "forecast": {
                name: None if one is None else {**one._asdict(), "is_trend": one.is_trend}
                for name, one in forecasts.items()
            },
            "skipped": list(self.skipped),
        }


def learning_curve(
    make_head: Callable[[], Any],
    train: Scored,
    validation: Scored | None = None,
    folds: NDArray[np.int64] | None = None,
    *,
    views: int = 1,
    grouped: bool = False,
    fractions: Sequence[float] = FRACTIONS,
    draws: int = DRAWS,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> LearningCurve:
    """Train a head on growing parts of the training photos and score it on others.

    The parts of a draw are nested: a smaller one is in all larger ones. They hold the same share of the
    groups of each class, at least two, and no group is divided. All sizes are scored on the same photos.

    Parameters
    ----------
    make_head : callable
        Returns an unfitted classifier.
    train : Scored
        ``X`` has `views` rows for each photo one after another, ``y`` and ``groups`` have one.
    validation : Scored, optional
        The photos that heads are scored on, in `draws` draws. Without it, `folds` are needed.
    folds : array of shape (n,), optional
        The fold of each training photo: for every fold, parts of the other folds are trained on, and scored
        on it. Then the largest size is that of all folds but one.
    views : int, default 1
    grouped : bool, default False
        Give the groups to the ``fit`` of heads that take them, as the weights are.
    fractions : sequence of float in (0, 1]
        Parts of the training photos, increasing.
    draws : int, default 5
    seed : int, default 0
    progress : callable, optional
        Called with the number of sizes that are done, and their total.

    Raises
    ------
    TrainingError
        The head cannot be trained at any size.
    """
    trials = list(_trials(train, validation, folds, draws, views))
    fit = partial(_fitted, make_head, train, views, grouped)
    rng = np.random.default_rng(seed)
    parts = [_nested_parts(train, trial.rows, fractions, rng) for trial in trials]
    sizes: list[_Size] = []
    skipped: list[str] = []
    for place, fraction in enumerate(fractions):
        rows = [nested[place] for nested in parts]
        photos = float(np.mean([len(part) for part in rows]))
        if not sizes or photos > sizes[-1].photos:
            try:
                sizes.append(_size(fit, trials, rows))
            except TrainingError as error:
                skipped.append(f"{fraction:.0%} ({photos:,.0f} photos): {first_line(error)}")
        progress(place + 1, len(fractions))
    if not sizes:
        raise TrainingError(f"the head cannot be trained at any size; {skipped[-1]}")
    curve = _curve(sizes, train if validation is None else validation, validation is None, len(trials), seed)
    return replace(curve, skipped=tuple(skipped))


class _Trial(NamedTuple):
    """Rows of photos to train on, and what is scored: features, labels, and their places among all scored."""

    rows: _Rows
    X: NDArray[Any]
    y: NDArray[np.int64]
    places: _Rows


def _trials(
    train: Scored, validation: Scored | None, folds: NDArray[np.int64] | None, draws: int, views: int
) -> Iterator[_Trial]:
    every = np.arange(len(train.y))
    if validation is not None:
        for _ in range(draws):
            yield _Trial(every, validation.X, validation.y, np.arange(len(validation.y)))
        return
    if folds is None:
        raise ValueError("give validation or folds")
    for fold in range(int(folds.max()) + 1):
        held_out = np.flatnonzero(folds == fold)
        X = train.X[held_out * views]
        yield _Trial(np.flatnonzero(folds != fold), X, train.y[held_out], held_out)


def _nested_parts(
    train: Scored, rows: _Rows, fractions: Sequence[float], rng: np.random.Generator
) -> list[_Rows]:
    """Draw nested parts of `rows`, one for each fraction: whole groups, the same share of each class."""
    _, group = np.unique(train.groups[rows], return_inverse=True)
    first = np.unique(group, return_index=True)[1]
    class_of_group = train.y[rows][first]
    rank = np.empty(len(first), np.intp)
    sizes = np.empty(len(first), np.intp)
    for label in np.unique(class_of_group):
        members = rng.permutation(np.flatnonzero(class_of_group == label))
        rank[members], sizes[members] = np.arange(len(members)), len(members)
    return [
        rows[(rank < np.maximum(np.ceil(fraction * sizes), _FEWEST_GROUPS))[group]] for fraction in fractions
    ]


class _Size(NamedTuple):
    """Errors and losses of every scored photo by draw, (d, m); in folds each photo is scored once, (1, m)."""

    photos: float
    errors: _Floats
    losses: _Floats | None


def _fitted(make_head: Callable[[], Any], train: Scored, views: int, grouped: bool, part: _Rows) -> Any:
    """Return a head that was trained on these photos, in all their views."""
    rows = (part[:, None] * views + np.arange(views)).ravel()
    head = make_head()
    weights = None if train.weights is None else train.weights[part].repeat(views)
    groups = train.groups[part].repeat(views) if grouped else None
    call(head.fit, train.X[rows], train.y[part].repeat(views), **fit_arguments(head, weights, groups))
    return head


def _size(fit: Callable[[_Rows], Any], trials: Sequence[_Trial], parts: Sequence[_Rows]) -> _Size:
    photos = float(np.mean([len(part) for part in parts]))
    if all(np.array_equal(part, parts[0]) for part in parts):
        trials, parts = trials[:1], parts[:1]  # all photos: there is nothing to draw

    def errors_of(trial: _Trial, part: _Rows) -> tuple[_Floats, _Floats | None]:
        given = Predictions.of(*predictions_of(fit(part), trial.X, trial.y))
        wrong = (given.true != given.predicted).astype(np.float64)
        return wrong, None if given.probabilities is None else given.losses()

    work = (delayed(errors_of)(*one) for one in zip(trials, parts, strict=True))
    errors, losses = zip(*Parallel(n_jobs=cores(), prefer="threads")(work), strict=True)
    places = [one.places for one in trials]
    in_folds = len(places) > 1 and not np.array_equal(places[0], places[1])
    order = np.argsort(np.concatenate(places)) if in_folds else None
    return _Size(photos, _by_draw(errors, order), None if losses[0] is None else _by_draw(losses, order))


def _by_draw(values: Sequence[_Floats], order: _Rows | None) -> _Floats:
    """Return the values of each draw as a row; those of folds as one row in the order of the photos."""
    return np.stack(values) if order is None else np.concatenate(values)[order][None]


def _curve(sizes: Sequence[_Size], scored: Scored, in_folds: bool, draws: int, seed: int) -> LearningCurve:
    photos = np.array([one.photos for one in sizes])
    columns = scored.groups, scored.weights, seed
    errors = [one.errors for one in sizes]
    losses = [one.losses for one in sizes if one.losses is not None]
    enough = len(sizes) >= _FEWEST_SIZES
    return LearningCurve(
        photos,
        1 - mean_errors(errors, scored.weights),
        mean_errors(losses, scored.weights) if losses else None,
        errors[0].shape[1],
        draws,
        in_folds,
        forecast(photos, errors, *columns) if enough else None,
        forecast(photos, losses, *columns) if enough and losses else None,
    )
