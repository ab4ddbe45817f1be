"""Evaluates a model on labelled photos that it was not trained on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from featcache.errors import DataError
from featcache.evaluating.labelled import LabelledPhotos, find_labelled
from featcache.evaluation.reliability import reliability
from featcache.evaluation.scoring import full_scores, predictions_of
from featcache.featurize import Batch, Photo, featurize
from featcache.images.rows import FoundPhoto
from featcache.images.views import View
from featcache.model import Model
from featcache.reporter import SILENT, Reporter


class Mistake(NamedTuple):
    """A photo whose predicted class is not its label; `probability` is that of the predicted class."""

    path: str
    label: str
    predicted: str
    probability: float | None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A model's scores on labelled photos.

    Attributes
    ----------
    model : str
        The head's name.
    source : str
        Where the photos are.
    classes : tuple of str
    paths : tuple of str
        The n scored photos.
    labels, predicted : int64 arrays of shape (n,)
        Positions in `classes`.
    probabilities : float32 array of shape (n, k), or None
        None for heads without probabilities.
    scores : dict
        As `featcache.evaluation.full_scores` gives them.
    reliability : list of dict
        As `featcache.evaluation.reliability.reliability` gives it; empty without probabilities.
    trained_on : int or None
        Photos that were left out, because the model was trained on them; None where the model does not know
        which these are.
    chosen_on : int or None
        Photos among the scored ones that the model was chosen on; None where that is not known.
    copies : int
        Photos that were left out, because others have the same bytes and the same label.
    two_labels : tuple of str
        Photos that were left out, because they, or others with the same bytes, have two labels.
    unknown : dict of str to int
        Labels that the model does not know, with the number of their photos, which were left out.
    failed : tuple of (str, str)
        Photos and folders that could not be read, with reasons.
    """

    model: str
    source: str
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probabilities: NDArray[np.float32] | None
    scores: Mapping[str, Any]
    reliability: Sequence[Mapping[str, Any]]
    trained_on: int | None
    chosen_on: int | None
    copies: int
    two_labels: tuple[str, ...]
    unknown: Mapping[str, int]
    failed: tuple[tuple[str, str], ...]

    @property
    def mistakes(self) -> list[Mistake]:
        """The photos with a wrong prediction, the most confident first."""
        rows = np.flatnonzero(self.labels != self.predicted)
        shares = self.confidences
        if shares is not None:
            rows = rows[np.argsort(-shares[rows], kind="stable")]
        return [
            Mistake(
                self.paths[row],
                self.classes[self.labels[row]],
                self.classes[self.predicted[row]],
                None if shares is None else float(shares[row]),
            )
            for row in rows.tolist()
        ]

    @property
    def confidences(self) -> NDArray[np.float32] | None:
        """The probability of each photo's predicted class, (n,); None for heads without probabilities."""
        if self.probabilities is None:
            return None
        return self.probabilities[np.arange(len(self.predicted)), self.predicted]

    def to_json(self) -> dict[str, Any]:
        """Return the evaluation as JSON-ready data."""
        return {
            "model": self.model,
            "source": self.source,
            "scores": dict(self.scores),
            "reliability": [dict(one) for one in self.reliability],
            "trained_on": self.trained_on,
            "chosen_on": self.chosen_on,
            "copies": self.copies,
            "two_labels": list(self.two_labels),
            "unknown": dict(self.unknown),
            "failed": [{"path": path, "reason": reason} for path, reason in self.failed],
            "mistakes": [one._asdict() for one in self.mistakes],
        }


def evaluate(
    model: Model | str | os.PathLike[str],
    source: str | os.PathLike[str],
    *,
    skip_unknown: bool = False,
    reporter: Reporter = SILENT,
) -> Evaluation:
    """Score a model on labelled photos that it has not seen.

    Every photo is read once. Features are not written to the store. Photos that the model was trained on are
    recognised by their bytes and left out. Of photos with the same bytes one is scored; where their labels
    differ, none. A manifest's columns ``weight`` and ``group`` are used as in training: photos of weight 0
    are left out, and intervals resample groups. Reliability and mistakes are those of photos, whatever their
    weight.

    Parameters
    ----------
    model : Model or path
        A path as `Model.load` takes it.
    source : path
        A folder of class folders, or of ``train/``, ``validation/`` and ``test/`` with class folders, which
        are taken together; or a CSV manifest with the columns path and label. Not every class needs photos.
    skip_unknown : bool, default False
        Leave out photos whose labels are no classes of the model, instead of refusing them.
    reporter : Reporter, optional

    Raises
    ------
    DataError
        There are no photos, a label is no class of the model, or no photo is left to score.
    ModelError
        The model cannot be loaded, or its base is not here.
    """
    model = model if isinstance(model, Model) else Model.load(model)
    found = find_labelled(Path(source), model.classes, skip_unknown)
    for note in found.notes:
        reporter.note(note)
    predicted = _predict(model, found, reporter)
    rows, contradictory = _different(predicted.digests, predicted.labels)
    two_labels = (*found.two_labels, *(predicted.paths[row] for row in contradictory))
    if not len(rows):
        raise DataError(_nothing_left(os.fspath(source), found, predicted, two_labels))
    y, probabilities, labels, classes, decision = predicted.arguments(rows)
    weights, groups = _weights_and_groups([found.photos[predicted.paths[row]] for row in rows])
    scores = full_scores(y, probabilities, labels, classes, decision, weights=weights, groups=groups)
    for one in scores["per_class"]:
        one["class"] = model.classes[one["class"]]
    photos = model.photos
    return Evaluation(
        model.name,
        os.fspath(source),
        model.classes,
        tuple(predicted.paths[row] for row in rows),
        y,
        labels,
        probabilities,
        scores,
        [] if probabilities is None else reliability(y, probabilities, classes),
        None if photos is None else len(predicted.trained_on),
        None if photos is None else int(photos.chosen_on(predicted.digests[rows]).sum()),
        len(predicted.paths) - len(rows) - len(contradictory),
        two_labels,
        found.unknown,
        (*found.unreadable, *predicted.failed),
    )


@dataclass
class _Predicted:
    """What a model says of the photos that could be decoded.

    Attributes
    ----------
    paths : list of str
    parts : list of tuples
        Arguments of `featcache.evaluation.scores` for the photos of each batch.
    trained_on : list of str
        Paths of photos that were not decoded, because the model was trained on them.
    failed : list of (str, str)
    """

    paths: list[str] = field(default_factory=list)
    parts: list[tuple[Any, ...]] = field(default_factory=list)
    trained_on: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    _digests: list[bytes] = field(default_factory=list)

    @property
    def digests(self) -> NDArray[np.uint8]:
        return np.frombuffer(b"".join(self._digests), np.uint8).reshape(-1, 32)

    @property
    def labels(self) -> NDArray[np.int64]:
        return np.concatenate([part[0] for part in self.parts]) if self.parts else np.empty(0, np.int64)

    def add(self, batch: Batch, head: Any, labels: Mapping[str, int]) -> None:
        self.failed += [(photo.path, reason) for photo, reason in batch.failed]
        if batch.features is None:
            return
        y = np.array([labels[photo.path] for photo in batch.photos], np.int64)
        _, probabilities, predicted, classes, decision = predictions_of(head, batch.features, y)
        shares = None if probabilities is None else np.asarray(probabilities, np.float32)
        self.parts.append((y, shares, np.asarray(predicted, np.int64), classes, decision))
        self.paths += [photo.path for photo in batch.photos]
        self._digests += [photo.digest for photo in batch.photos]

    def arguments(self, rows: NDArray[np.intp]) -> tuple[Any, ...]:
        """Return the arguments of `featcache.evaluation.scores` for these rows."""
        y, probabilities, predicted, classes, decision = zip(*self.parts, strict=True)

        def of_rows(parts: Sequence[Any]) -> Any:
            return None if parts[0] is None else np.concatenate(parts)[rows]

        return of_rows(y), of_rows(probabilities), of_rows(predicted), classes[0], of_rows(decision)


def _predict(model: Model, found: LabelledPhotos, reporter: Reporter) -> _Predicted:
    numbers = {name: number for number, name in enumerate(model.classes)}
    labels = {path: numbers[photo.label] for path, photo in found.photos.items()}
    photos, done, predicted = [Photo(path) for path in labels], 0, _Predicted()

    def select(photo: Photo, digest: bytes) -> list[View | None]:
        if model.photos is not None and model.photos.trained_on(np.frombuffer(digest, np.uint8)).any():
            predicted.trained_on.append(photo.path)
            return []
        return [None]

    reporter.advance("evaluating", 0, len(photos))
    for batch in featurize(photos, model.base(len(photos), reporter), select):
        predicted.add(batch, model.head, labels)
        done += len(batch.asked)
        reporter.advance("evaluating", done, len(photos))
    return predicted


def _different(
    digests: NDArray[np.uint8], labels: NDArray[np.int64]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows to score, one for equal photos, and those of equal photos with different labels."""
    if not len(labels):
        return np.empty(0, np.intp), np.empty(0, np.intp)
    _, first, photo = np.unique(digests, axis=0, return_index=True, return_inverse=True)
    photo = photo.reshape(-1)
    differs = labels != labels[first[photo]]
    contradictory = np.isin(photo, photo[differs])
    return np.setdiff1d(first, np.flatnonzero(contradictory)), np.flatnonzero(contradictory)


def _weights_and_groups(
    photos: Sequence[FoundPhoto],
) -> tuple[NDArray[np.float64], NDArray[np.int64] | None]:
    """Return the weights of photos and, where there are any, the numbers of their groups."""
    weights = np.array([photo.weight for photo in photos])
    if not any(photo.group for photo in photos):
        return weights, None
    numbers: dict[tuple[str, str], int] = {}
    keys = ((photo.group, "" if photo.group else photo.path) for photo in photos)
    return weights, np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def _nothing_left(
    source: str, found: LabelledPhotos, predicted: _Predicted, two_labels: Sequence[str]
) -> str:
    """Say why there is no photo to score."""
    reasons = []
    if predicted.trained_on:
        reasons.append(f"{len(predicted.trained_on):,} are photos that the model was trained on")
    if failed := [*found.unreadable, *predicted.failed]:
        path, reason = failed[0]
        reasons.append(f"{len(failed):,} cannot be read, the first is {path}: {reason}")
    if two_labels:
        reasons.append(f"{len(two_labels):,} have two labels")
    why = "; ".join(reasons) or "there are no photos"
    return f"{source} has no photo to evaluate the model on: {why}. Give labelled photos that it has not seen"
