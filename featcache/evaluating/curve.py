"""The learning curve of a run: how the default head gets better with more of the training photos."""

from __future__ import annotations

import numpy as np

from featcache.evaluation.learning_curve import LearningCurve, Scored, learning_curve
from featcache.extraction.stage import Extraction
from featcache.heads.estimators import build_head
from featcache.recipe import HeadSettings, Recipe
from featcache.recipe.sections import DEFAULT_HEADS
from featcache.reporter import SILENT, Reporter
from featcache.training.data import TrainingData


def curve_of_run(extraction: Extraction, recipe: Recipe, reporter: Reporter = SILENT) -> LearningCurve:
    """Compute the learning curve of the default head on a run's features.

    The head is the first of `featcache.recipe.sections.DEFAULT_HEADS`, whatever the recipe's heads are. It is
    scored on validation, or, where heads are compared by cross-validation, in the same folds.

    Raises
    ------
    TrainingError
        The head cannot be trained on the photos.
    """
    data = TrainingData(extraction, recipe)
    settings = HeadSettings.model_validate(DEFAULT_HEADS[0])
    with extraction.open() as features:
        groups = {split: features[split].groups for split in features.splits}
    X, y = data.rows["train"]
    of_train = [groups[split] for split in ("train", "validation") if split in groups]
    in_folds, sampling = data.scored.folds is not None, data.sampling["train"]
    own = np.concatenate(of_train) if in_folds else groups["train"]
    train = Scored(X, y[:: data.views], own, sampling.weights)
    weights = data.scored_sampling.weights
    return learning_curve(
        lambda: build_head(settings, recipe.seed),
        train,
        None if in_folds else Scored(*data.rows["validation"], groups["validation"], weights),
        data.scored.folds,
        views=data.views,
        grouped=sampling.groups is not None,
        seed=recipe.seed,
        progress=lambda done, total: reporter.advance("learning curve", done, total),
    )
