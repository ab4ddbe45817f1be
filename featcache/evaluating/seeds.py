"""How much the scores of a Dense head depend on its seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featcache.errors import RecipeError, TrainingError
from featcache.evaluation.calls import call
from featcache.evaluation.fitting import arguments_of
from featcache.evaluation.folds import HeldOut
from featcache.evaluation.scoring import predictions_of, scores
from featcache.extraction.stage import Extraction
from featcache.heads.estimators import build_head
from featcache.recipe import HeadSettings, Recipe
from featcache.reporter import SILENT, Reporter
from featcache.training.data import TrainingData
from featcache.training.head import with_class_numbers


@dataclass(frozen=True)
class SeedSpread:
    """Scores of a Dense head that was trained with several seeds.

    Attributes
    ----------
    name : str
    seeds : tuple of int
    accuracy, log_loss : tuple of float
        One for each seed, on the photos that the run's heads are scored on.
    n : int
        Number of these photos.
    """

    name: str
    seeds: tuple[int, ...]
    accuracy: tuple[float, ...]
    log_loss: tuple[float, ...]
    n: int

    def mean(self, metric: str) -> float:
        """Return the mean of "accuracy" or "log_loss"."""
        return float(np.mean(getattr(self, metric)))

    def standard_deviation(self, metric: str) -> float:
        """Return the standard deviation of "accuracy" or "log_loss" (of a sample: n - 1)."""
        return float(np.std(getattr(self, metric), ddof=1))

    def to_json(self) -> dict[str, Any]:
        """Return the scores as JSON-ready data."""
        facts: dict[str, Any] = {"name": self.name, "n": self.n, "seeds": list(self.seeds)}
        for metric in ("accuracy", "log_loss"):
            mean, deviation = self.mean(metric), self.standard_deviation(metric)
            values = list(getattr(self, metric))
            facts[metric] = {"mean": mean, "standard_deviation": deviation, "values": values}
        return facts


def check_seeds(recipe: Recipe, count: int) -> list[HeadSettings]:
    """Return the recipe's Dense heads.

    Raises
    ------
    RecipeError
        There are none, or `count` is below 2.
    """
    if count < 2:
        raise RecipeError(f"seeds = {count}: a spread needs two seeds or more, such as 5")
    dense = [settings for settings in recipe.heads if settings.type == "dense"]
    if not dense:
        names = ", ".join(str(settings.name) for settings in recipe.heads)
        raise RecipeError(
            f"--seeds trains Dense heads with several seeds, and there are none among {names}; add one with "
            'type = "dense", or leave --seeds out'
        )
    return dense


def spread_over_seeds(
    extraction: Extraction, recipe: Recipe, count: int, reporter: Reporter = SILENT
) -> list[SeedSpread]:
    """Train each Dense head of a recipe with several seeds, together, and score it with each.

    The seeds are the recipe's and those that follow it; a head's own ``random_state`` is not used. Heads are
    scored as in the run, on validation or in folds, and are not calibrated.

    Raises
    ------
    RecipeError
        As `check_seeds`.
    TrainingError
        A head cannot be trained.
    """
    dense = check_seeds(recipe, count)
    data = TrainingData(extraction, recipe)
    seeds = tuple(range(recipe.seed, recipe.seed + count))
    spreads = []
    reporter.advance("seeds", 0, len(dense))
    for done, settings in enumerate(dense, start=1):
        heads = [_head(settings, data.classes, seed) for seed in seeds]
        found = _scores_in_folds(heads, data) if data.scored.folds is not None else _scores(heads, data)
        accuracy, loss = ([one[name] for one in found] for name in ("accuracy", "log_loss"))
        n = len(data.scored.labels)
        spreads.append(SeedSpread(str(settings.name), seeds, tuple(accuracy), tuple(loss), n))
        reporter.advance("seeds", done, len(dense))
    return spreads


def _head(settings: HeadSettings, classes: Sequence[str], seed: int) -> Any:
    head = with_class_numbers(settings, build_head(settings, seed), classes, seed)
    return head.set_params(random_state=seed)


def _scores(heads: Sequence[Any], data: TrainingData) -> list[dict[str, Any]]:
    from featcache.heads.dense.stack import fit_together

    X, y = data.rows["train"]
    validation, columns = data.rows["validation"], data.scored_sampling.columns
    extra = {"validation_data": (*validation, *data.scored_sampling.given_weights), "views": data.views}
    sampling = data.sampling["train"].of_views(data.views)
    extra |= arguments_of(fit_together, sampling.weights, sampling.groups)
    _raise_first(call(fit_together, heads, X, y, **extra))
    return [scores(*predictions_of(head, *validation), **columns) for head in heads]


def _scores_in_folds(heads: Sequence[Any], data: TrainingData) -> list[dict[str, Any]]:
    from featcache.heads.dense.stack import fit_folds

    X, y = data.rows["train"]
    folds = data.scored.folds
    assert folds is not None
    found, columns = [], data.scored_sampling.columns
    extra = arguments_of(fit_folds, data.sampling["train"].of_views(data.views).weights, None)
    for fitted in call(fit_folds, heads, X, y, folds.repeat(data.views), data.views, **extra):
        _raise_first(fitted)
        one = HeldOut.of(fitted, X[:: data.views], folds)
        found.append(scores(data.scored.labels, one.probabilities, one.predicted, one.classes, **columns))
    return found


def _raise_first(results: Sequence[Any]) -> None:
    for one in results:
        if isinstance(one, TrainingError):
            raise one
