"""What a run's models know of photos that are none of its classes: the same for all of its heads."""

from __future__ import annotations

import numpy as np

from featcache.evaluation.conformal import ConformalSets
from featcache.evaluation.novelty import Novelty, unit_vectors
from featcache.run.predictions import HeadPredictions, ScoredRows
from featcache.store.feature_file import Features

_SPLITS = ("train", "validation")


def novelty_of(features: Features, seed: int) -> Novelty | None:
    """Learn the classes of train and validation from the plain photos; those of weight 0 are left out.

    Parameters
    ----------
    features : Features
        Open. Read in blocks: of an early layer they may be larger than memory.
    seed : int
        Of the folds.

    Returns
    -------
    Novelty or None
        None where no class has two photos that are not of one group.
    """
    splits = [features[name] for name in _SPLITS if name in features.splits]
    vectors = np.concatenate([unit_vectors(X) for split in splits for X, _ in split.blocks()])
    labels, groups, weights = (
        np.concatenate([getattr(split, name) for split in splits]) for name in ("labels", "groups", "weights")
    )
    used = weights > 0
    try:
        return Novelty.fit(vectors[used], labels[used], groups[used], seed)
    except ValueError:
        return None


def conformal_of(predictions: HeadPredictions | None, rows: ScoredRows) -> ConformalSets | None:
    """Keep a head's held-out probabilities of the true classes; None for a head without probabilities."""
    if predictions is None or predictions.probabilities is None:
        return None
    used = slice(None) if rows.weights is None else rows.weights > 0
    return ConformalSets.of(predictions.probabilities[used], rows.labels[used])
