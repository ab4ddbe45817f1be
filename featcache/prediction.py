"""What a model says of photos: class, probabilities, novelty, sets of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ModelError
from featcache.evaluation.conformal import ConformalSets
from featcache.evaluation.novelty import DEFAULT_LEVEL, Novelty

NONE_OF_THESE = "none of these"
"""What people are told in place of a class."""


@dataclass(frozen=True)
class Prediction:
    """What a model says of one photo.

    Attributes
    ----------
    path : str
        Empty for photos that were not given as a path: predictions come in the order of the photos, one for
        each.
    label : str or None
        None when the photo could not be decoded, or was rejected.
    probability : float or None
        Of `label`; None also for classifiers that give no probabilities.
    probabilities : dict of str to float, or None
        By class, also of a photo that was rejected.
    reason : str or None
        Why the photo could not be decoded.
    novelty : float or None
        p-value: the share of photos of known classes that are at least as unlike their class. Small where
        the photo is likely none of the classes. None for models without novelty.
    rejected : bool or None
        Whether `novelty` is below the level asked for; None where none was asked for.
    set : tuple of str, or None
        Where asked for, the classes that hold the true one with the probability asked for, the most probable
        first; empty for a photo that was rejected.
    """

    path: str
    label: str | None
    probability: float | None = None
    probabilities: dict[str, float] | None = None
    reason: str | None = None
    novelty: float | None = None
    rejected: bool | None = None
    set: tuple[str, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the prediction as JSON-ready data; the last four only where there are any."""
        known = {
            "path": self.path,
            "label": self.label,
            "probability": self.probability,
            "probabilities": self.probabilities,
        }
        further = {
            "reason": self.reason,
            "novelty": self.novelty,
            "rejected": self.rejected,
            "set": None if self.set is None else list(self.set),
        }
        return known | {name: value for name, value in further.items() if value is not None}


@dataclass(frozen=True)
class Asked:
    """What is asked of a model beside the class.

    Attributes
    ----------
    reject : float or None
        Photos whose novelty is below it are none of the classes.
    set_size : float or None
        Share of photos whose set of classes may lack the true one.
    """

    reject: float | None = None
    set_size: float | None = None

    def check(self, model: str, novelty: Novelty | None, conformal: ConformalSets | None) -> None:
        """Make sure that a model can answer.

        Raises
        ------
        ModelError
            A level is not between 0 and 1, or so small that no photo could be below it; or the model, of this
            name, does not know what is asked.
        """
        for name, level in (("reject", self.reject), ("set_size", self.set_size)):
            if level is not None and not 0 < level < 1:
                raise ModelError(
                    f"{name} = {level}: it is a share of photos between 0 and 1 (both excluded), such as 0.05"
                )
        if self.reject is not None:
            _check_level("reject", self.reject, _known(novelty, model), "no photo could be rejected")
        if self.set_size is not None:
            held = _known_probabilities(conformal, model)
            _check_level("set_size", self.set_size, held, "every set would hold all classes")


def _known(novelty: Novelty | None, model: str) -> Novelty:
    if novelty is None:
        raise ModelError(
            f"reject needs the novelty score of photos, which {model!r} does not have: it was trained by an "
            "earlier version of featcache, or on one photo of each class; train the head again, or leave "
            "reject out"
        )
    return novelty


def _known_probabilities(conformal: ConformalSets | None, model: str) -> ConformalSets:
    if conformal is None:
        raise ModelError(
            f"set_size needs probabilities of photos that the head was not fitted on, which {model!r} does "
            "not have: it gives no probabilities, or was trained by an earlier version of featcache; choose "
            "the model of another head, train it again, or leave set_size out"
        )
    return conformal


def _check_level(name: str, level: float, known: Novelty | ConformalSets, else_: str) -> None:
    if level < known.smallest:
        smallest = np.ceil(known.smallest * 1000) / 1000
        raise ModelError(
            f"{name} = {level} is too small for the {len(known.scores):,} photos that the model was compared "
            f"with: {else_}; use {smallest:.3g} or more, or train on more photos"
        )


@dataclass(frozen=True)
class Answers:
    """Turns features into predictions.

    Attributes
    ----------
    classes : tuple of str
    classifier : classifier
        With the labels 0 … len(classes) - 1.
    novelty : Novelty or None
    conformal : ConformalSets or None
    asked : Asked
        As `Asked.check` allows it.
    """

    classes: tuple[str, ...]
    classifier: Any
    novelty: Novelty | None
    conformal: ConformalSets | None
    asked: Asked

    @property
    def notes(self) -> list[str]:
        """Sentences about the answers as a whole: which classes have too few photos by themselves."""
        level, novelty = self.asked.reject, self.novelty
        if level is None or novelty is None or not (pooled := novelty.pooled_classes(level)):
            return []
        names = ", ".join(self.classes[label] for label in pooled[:5])
        return [
            f"{len(pooled):,} of {len(self.classes):,} classes have too few photos to tell novelty below "
            f"{level:g} by themselves, and are compared with the photos of all classes: {names}"
            f"{', …' if len(pooled) > 5 else ''}"
        ]

    def of(self, paths: Sequence[str], features: NDArray[Any]) -> list[Prediction]:
        """Return the predictions of features (n, ...) of photos with these paths."""
        labels, shares = self.classifier.predict(features), self.probabilities(features)
        reject, sets = self.asked.reject, self._sets(shares)
        p = None if self.novelty is None else self.novelty.p_values(features, reject or DEFAULT_LEVEL)
        predictions = []
        for row, (path, label) in enumerate(zip(paths, labels, strict=True)):
            name = self.classes[label]
            by_class = None if shares is None else dict(zip(self.classes, shares[row].tolist(), strict=True))
            novelty = None if p is None else float(p[row])
            rejected = None if reject is None or novelty is None else novelty < reject
            predictions.append(
                Prediction(
                    path,
                    None if rejected else name,
                    None if rejected or by_class is None else by_class[name],
                    by_class,
                    novelty=novelty,
                    rejected=rejected,
                    set=None if sets is None else () if rejected else sets[row],
                )
            )
        return predictions

    def probabilities(self, features: NDArray[Any]) -> NDArray[Any] | None:
        """Return the classes' probabilities (n, k) for features (n, ...); None for heads without any."""
        if not hasattr(self.classifier, "predict_proba"):
            return None
        return np.asarray(self.classifier.predict_proba(features))

    def _sets(self, shares: NDArray[Any] | None) -> list[tuple[str, ...]] | None:
        if self.asked.set_size is None or shares is None or self.conformal is None:
            return None
        chosen = self.conformal.sets(shares, self.asked.set_size)
        order = np.argsort(-shares, axis=1, kind="stable")
        rows = zip(order.tolist(), chosen, strict=True)
        return [tuple(self.classes[place] for place in places if own[place]) for places, own in rows]
