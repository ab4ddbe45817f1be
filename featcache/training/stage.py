"""Stage 2: a feature file → heads trained, scored on validation and saved; the best one scored on test."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.bases.spec import BaseSpec
from featcache.errors import FeatcacheError, RecipeError, TrainingError, did_you_mean
from featcache.evaluation import score_head_fully
from featcache.evaluation.folds import OUT_OF_FOLD, cross_validate, draw_folds
from featcache.extraction.stage import Extraction, extract
from featcache.files import write_bytes_whole
from featcache.heads.calibration import calibrated
from featcache.heads.dense.head import DenseHead
from featcache.heads.dense.training import tensorflow_loaded
from featcache.heads.estimators import build_head
from featcache.model import Model
from featcache.recipe import DataSettings, HeadSettings, Recipe
from featcache.reporter import SILENT, Reporter
from featcache.run.layout import HEADS_FILE, MODELS_FOLDER
from featcache.store.feature_file import Features

# scikit-learn's words for settings that do not go with the data, or with each other
UNFIT = (ValueError, TypeError, IndexError, ArithmeticError, NotImplementedError)
_Rows = tuple[NDArray[Any], NDArray[np.int64]]


@dataclass(frozen=True)
class HeadResult:
    """A trained head and its scores.

    Attributes
    ----------
    name : str
    fit_seconds : float
    validation : dict
        Scores as `featcache.evaluation.full_scores` gives them; with ``data.folds`` cross-validated.
    test : dict or None
        Only for the best head of the run.
    model : Path
        Folder of the saved model.
    """

    name: str
    fit_seconds: float
    validation: dict[str, Any]
    test: dict[str, Any] | None
    model: Path

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON-ready data."""
        return {
            "name": self.name,
            "fit_seconds": round(self.fit_seconds, 3),
            "validation": self.validation,
            "test": self.test,
            "model": str(self.model),
        }


@dataclass(frozen=True)
class Training:
    """Result of stage 2.

    Attributes
    ----------
    extraction : Extraction
        Result of stage 1.
    heads : tuple of HeadResult
        In the recipe's order.
    best : str
        Name of the head with the highest validation accuracy; among equals, with the lowest log loss.
    """

    extraction: Extraction
    heads: tuple[HeadResult, ...]
    best: str

    def __getitem__(self, name: str) -> HeadResult:
        return next(head for head in self.heads if head.name == name)

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON-ready data."""
        return {
            "run": str(self.extraction.run),
            "features": self.extraction.to_json(),
            "heads": [head.to_json() for head in self.heads],
            "best": self.best,
        }


def train_heads(recipe: Recipe, reporter: Reporter = SILENT) -> Training:
    """Train the recipe's heads on its features; stage 1 runs first and computes what is missing.

    Parameters
    ----------
    recipe : Recipe
    reporter : Reporter, optional
        Listens to the work.

    Returns
    -------
    Training

    Raises
    ------
    RecipeError
        A head's settings say something that cannot be; this is found before any photo is read.
    TrainingError
        A head cannot be trained on these features.
    FeatcacheError
        All that `featcache.extraction.stage.extract` raises.
    """
    heads = [(settings, build_head(settings, recipe.seed)) for settings in recipe.heads]
    _refuse_calibration_on_folds(recipe)
    extraction = extract(recipe, reporter)
    data = _Data.load(extraction, recipe.data)
    trained = []
    reporter.advance("training", 0, len(heads))
    for settings, head in heads:
        trained.append(_train(recipe, settings, head, data, reporter))
        reporter.advance("training", len(trained), len(heads))
    results = _score_best_on_test_and_save(trained, data)
    training = Training(extraction, tuple(results), max(results, key=_goodness).name)
    _write_heads_file(recipe.run, training, data.fingerprint)
    return training


@dataclass
class _Data:
    """What heads are trained and scored on; with folds, train holds the validation rows too.

    Of train these are all views of its photos, of the other splits the plain photos.
    """

    rows: dict[str, _Rows]
    spec: BaseSpec
    classes: tuple[str, ...]
    fingerprint: str
    views: int = 1
    folds: NDArray[np.int64] | None = None
    photos: Sequence[str] = ()

    @classmethod
    def load(cls, extraction: Extraction, settings: DataSettings) -> _Data:
        with extraction.open() as features:
            rows = {split: features[split].load() for split in features.splits if split != "train"}
            rows["train"] = features["train"].load_views()
            spec, classes = BaseSpec.from_json(features.base), features.classes
            fingerprint = fingerprint_of(features, settings.folds)
            data = cls(rows, spec, classes, fingerprint, features["train"].views)
            if settings.folds is not None:
                data._divide(features, settings)
        return data

    def _divide(self, features: Features, settings: DataSettings) -> None:
        names = [split for split in ("train", "validation") if split in features]
        both = [features[split].load_views() for split in names]
        self.rows.pop("validation", None)
        self.rows["train"] = np.concatenate([X for X, _ in both]), np.concatenate([y for _, y in both])
        self.photos = [path for split in names for path in features[split].paths]
        digests = np.concatenate([features[split].digests for split in names])
        labels = self.rows["train"][1][:: self.views]
        folds = draw_folds(labels, digests, settings.folds or 0, settings.seed, self.classes)
        self.folds = folds.repeat(self.views)


def _refuse_calibration_on_folds(recipe: Recipe) -> None:
    for settings in recipe.heads:
        if recipe.data.folds is not None and settings.calibrate != "none":
            raise RecipeError(
                f"head {settings.name!r}: calibrate = {settings.calibrate!r} needs validation photos that it "
                "is not trained on, and with data.folds it is trained on all; leave one of the two out"
            )


def _train(
    recipe: Recipe, settings: HeadSettings, head: Any, data: _Data, reporter: Reporter
) -> tuple[Model, HeadResult]:
    """Train one head; score it on validation, or by cross-validation."""
    head = with_class_numbers(settings, head, data.classes, recipe.seed)
    name = str(settings.name)
    folder = recipe.run / MODELS_FOLDER / name
    with _blamed(name):
        if data.folds is None:
            seconds = _fit(head, settings, data, reporter)
            if settings.calibrate != "none":
                head = calibrated(head, *data.rows["validation"])
            scores = score_head_fully(head, *data.rows["validation"])
        else:
            X, y = data.rows["train"]
            found = cross_validate(head, X, y, data.folds, data.views)
            found.write(folder / OUT_OF_FOLD, data.photos, y[:: data.views], data.classes)
            scores = found.scores
            seconds = _fit(head, settings, data, reporter)
    name_classes(scores, data.classes)
    model = Model(name, data.classes, recipe.base, data.spec, head, {"validation": scores}, recipe.cache)
    return model, HeadResult(name, seconds, scores, None, folder)


def name_classes(scores: dict[str, Any], classes: Sequence[str]) -> None:
    """Put names where heads, which know numbers only, have these."""
    for one in scores["per_class"]:
        one["class"] = classes[one["class"]]


def _score_best_on_test_and_save(
    trained: Sequence[tuple[Model, HeadResult]], data: _Data
) -> list[HeadResult]:
    results = []
    best = max((result for _, result in trained), key=_goodness)
    for model, result in trained:
        test = None
        if result is best and "test" in data.rows:
            with _blamed(result.name):
                test = score_head_fully(model.head, *data.rows["test"])
            name_classes(test, data.classes)
        model.scores["test"] = test
        model.save(result.model)
        results.append(replace(result, test=test))
    return results


def fingerprint_of(features: Features, folds: int | None = None) -> str:
    """Return a hash of what heads are trained and scored on: scores under the same one can be compared."""
    facts = [features.base, features.classes, *([] if folds is None else [folds])]
    # without augmentation there is nothing to say of it, and hashes of earlier versions hold
    facts += [[split, features[split].view_numbers] for split in features.splits if features[split].views > 1]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for split in features.splits:
        digest.update(split.encode())
        digest.update(features[split].digests.tobytes())
        digest.update(features[split].labels.tobytes())
    return digest.hexdigest()


def _write_heads_file(run: Path, training: Training, fingerprint: str) -> None:
    """Write ``heads.json``; heads of earlier runs on the same data stay in it, and may still be the best."""
    facts = training.to_json()
    new = {head["name"] for head in facts["heads"]}
    kept = [head for head in _earlier_heads(run, fingerprint) if head["name"] not in new]
    heads = [*kept, *facts["heads"]]
    best = max(heads, key=lambda head: _rank(head["validation"]))["name"]
    facts |= {"heads": heads, "best": best, "data": fingerprint}
    write_bytes_whole(run / HEADS_FILE, (json.dumps(facts, indent=1) + "\n").encode())


def add_head(run: Path, result: HeadResult) -> None:
    """Enter a head that another stage trained on the run's data into ``heads.json``; it may be the best."""
    facts = json.loads((run / HEADS_FILE).read_text(encoding="utf-8"))
    heads = [head for head in facts["heads"] if head["name"] != result.name] + [result.to_json()]
    facts |= {"heads": heads, "best": max(heads, key=lambda head: _rank(head["validation"]))["name"]}
    write_bytes_whole(run / HEADS_FILE, (json.dumps(facts, indent=1) + "\n").encode())


def _earlier_heads(run: Path, fingerprint: str) -> list[dict[str, Any]]:
    try:
        earlier = json.loads((run / HEADS_FILE).read_text(encoding="utf-8"))
        return list(earlier["heads"]) if earlier["data"] == fingerprint else []
    except (OSError, ValueError, KeyError, TypeError):
        return []  # none yet, or of a format that is no more


def with_class_numbers(settings: HeadSettings, head: Any, classes: Sequence[str], seed: int) -> Any:
    """Return `head` with class weights by number where the recipe gives them by class name.

    Raises
    ------
    RecipeError
        A weight is given for a class that the photos do not have.
    """
    weights = settings.parameters.get("class_weight")
    if not isinstance(weights, dict):
        return head
    for name in weights:
        if name not in classes:
            raise RecipeError(
                f"head {settings.name!r}: class_weight names {name!r}, but the classes are "
                f"{', '.join(classes)}.{did_you_mean(name, classes)}"
            )
    by_number = {classes.index(name): weight for name, weight in weights.items()}
    return build_head(settings.model_copy(update={"class_weight": by_number}), seed)


def _fit(head: Any, settings: HeadSettings, data: _Data, reporter: Reporter) -> float:
    """Fit `head` in place and return how many seconds that took.

    A Dense head takes one view of each photo in an epoch. Others know no epochs: all views are rows to them.
    """
    if isinstance(head, DenseHead):
        tensorflow_loaded()  # its import is no part of the training
    started = time.monotonic()
    extra: dict[str, Any] = {}
    if isinstance(head, DenseHead):
        extra = {"validation_data": data.rows.get("validation"), "views": data.views}
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("default")
        head.fit(*data.rows["train"], **extra)
    for sentence in dict.fromkeys(str(warning.message).strip().splitlines()[0] for warning in heard):
        reporter.note(f"head {settings.name!r}: {sentence}")
    return time.monotonic() - started


@contextlib.contextmanager
def _blamed(name: str) -> Iterator[None]:
    """Turn what a classifier raises at settings that do not go with the data into a TrainingError."""
    try:
        yield
    except FeatcacheError as error:
        raise TrainingError(f"head {name!r}: {error}") from None
    except UNFIT as error:
        raise TrainingError(f"head {name!r} cannot be trained on these features: {error}") from error


def _goodness(result: HeadResult) -> tuple[float, float]:
    return _rank(result.validation)


def _rank(scores: dict[str, Any]) -> tuple[float, float]:
    loss = scores["log_loss"]
    return scores["accuracy"], -(math.inf if loss is None else loss)
