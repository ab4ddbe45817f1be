"""Stage 3: the top blocks of the base are trained further with a head, from features cached below them."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featcache.bases.boundary import Division, LayerRow, divide
from featcache.bases.sources import build_network
from featcache.bases.spec import BaseSpec
from featcache.errors import BaseNetworkError, RecipeError, did_you_mean
from featcache.evaluation import full_scores
from featcache.extraction.stage import Extraction, extract
from featcache.featurize import decode_photos
from featcache.finetuning.augmentation import augmentation_of
from featcache.finetuning.loop import Top, Tuning, TuningPlan, tune
from featcache.heads.dense.feed import Feed, InMemory, Rows, Streamed
from featcache.heads.dense.head import DenseHead
from featcache.heads.dense.training import glorot_uniform
from featcache.heads.keras_head import KerasHead
from featcache.model import Model
from featcache.recipe import BaseSettings, FinetuneSettings, Recipe
from featcache.reporter import SILENT, Reporter
from featcache.run.layout import MODELS_FOLDER
from featcache.store.feature_file import Features
from featcache.store.split import Split
from featcache.training import HeadResult, add_head, fingerprint_of, name_classes, train_heads

FOLDER, NAME = "finetune", "finetuned"
_MAX_MEMORY = 2 << 30


@dataclass(frozen=True)
class Finetuning:
    """Result of stage 3.

    Attributes
    ----------
    head : str
        Name of the trained head that it started from.
    started_from : DenseHead
        That head, with its own measures before and after each epoch.
    fresh_head : bool
        Its weights were drawn anew before: it has no epochs of its own.
    boundary : str
        The layer whose output was cached.
    layers : tuple of LayerRow
        Of the whole network.
    tuning : Tuning
        Measures before and after each epoch.
    extraction : Extraction
        Of the boundary's features.
    seconds : float
        Of the training.
    result : HeadResult
        The fine-tuned model, of the best epoch.
    """

    head: str
    started_from: DenseHead
    fresh_head: bool
    boundary: str
    layers: tuple[LayerRow, ...]
    tuning: Tuning
    extraction: Extraction
    seconds: float
    result: HeadResult

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON-ready data."""
        return {
            "run": str(self.extraction.run.parent),
            "features": self.extraction.to_json(),
            "head": self.head,
            "fresh_head": self.fresh_head,
            "head_before": self.started_from.before_,
            "head_history": self.started_from.history_,
            "boundary": self.boundary,
            "before": self.tuning.before,
            "history": self.tuning.history,
            "best_epoch": self.tuning.best_epoch,
            "seconds": round(self.seconds, 3),
            "model": self.result.to_json(),
        }


def finetune(
    recipe: Recipe,
    reporter: Reporter = SILENT,
    *,
    end_to_end: bool = False,
    score_epochs: bool = False,
) -> Finetuning:
    """Train the base's top layers together with a trained head; earlier stages run first.

    The output of the latest layer that everything passes before the first trainable one is extracted
    once and kept in the store. What lies above is trained from there: the numbers of training through the
    whole network, without running its frozen part in every epoch. A run that was ended goes on after its
    last whole epoch. The weights of the epoch with the best validation accuracy are kept.

    With a section ``augment`` an epoch sees each training photo in one of its stored views.

    Parameters
    ----------
    recipe : Recipe
        With a section ``finetune``.
    reporter : Reporter, optional
        Listens to the work.
    end_to_end : bool, default False
        Train through the whole network, for comparison. With a section ``augment`` photos are then
        augmented anew in every epoch, by Keras.
    score_epochs : bool, default False
        Measure every epoch on test, too.

    Raises
    ------
    RecipeError
        There is no section ``finetune``, or it names a head that is none.
    BaseNetworkError
        There is no such layer.
    TrainingError
        The head or the fine-tuning diverged.
    FeatcacheError
        All that `featcache.extraction.stage.extract` raises.
    """
    settings = _settings(recipe)
    started_from = _train_head(recipe, settings, reporter)
    head = _with_new_weights(started_from.head, recipe.seed) if settings.fresh_head else started_from.head
    division = _divide(recipe, settings)
    base = recipe.base.model_copy(update={"layer": division.boundary, "pooling": "none"})
    extraction = _extract(recipe, base, end_to_end, reporter)
    with extraction.open() as features:
        spec = BaseSpec.from_json(features.base)
        top = _top(recipe, division, head, spec, base if end_to_end else None)
        feeds = {split: _feed(features, split, base if end_to_end else None) for split in features.splits}
        if not score_epochs:
            feeds.pop("test", None)
        checkpoints = recipe.run / FOLDER / f"epochs-{_key(recipe, features, head, division, end_to_end)}"
        epochs = settings.epochs
        started = time.monotonic()
        tuning = tune(
            top,
            feeds,
            _plan(settings, recipe.seed),
            checkpoints,
            lambda done: reporter.advance("fine-tuning", done, epochs),
        )
        seconds = time.monotonic() - started
        tuned = top.classifier(tuning.history)
        model = Model(NAME, started_from.classes, base, spec, tuned, {}, recipe.cache)
        result = _scored(model, features, recipe.run / MODELS_FOLDER / NAME, seconds)
    add_head(recipe.run, result)
    return Finetuning(
        started_from.name,
        head,
        settings.fresh_head,
        division.boundary,
        division.layers,
        tuning,
        extraction,
        seconds,
        result,
    )


def _settings(recipe: Recipe) -> FinetuneSettings:
    if recipe.finetune is None:
        raise RecipeError(
            "the recipe has no [finetune]; say the first layer to train, for example "
            "--set finetune.unfreeze_from=100, or from_layer with a layer's name"
        )
    return recipe.finetune


def _train_head(recipe: Recipe, settings: FinetuneSettings, reporter: Reporter) -> Model:
    """Train the recipe's Dense heads, which takes seconds, and return the one to start from."""
    dense = [str(head.name) for head in recipe.heads if head.type == "dense"]
    if settings.head is not None and settings.head not in dense:
        raise RecipeError(
            f"finetune.head = {settings.head!r} is no Dense head of the recipe; those are "
            f"{', '.join(dense) or 'none'}.{did_you_mean(settings.head, dense)}"
        )
    if not dense:
        raise RecipeError('fine-tuning starts from a Dense head; add [[heads]] with type = "dense"')
    training = train_heads(recipe.with_heads([settings.head] if settings.head else dense), reporter)
    return Model.load(training[training.best].model)


def _divide(recipe: Recipe, settings: FinetuneSettings) -> Division:
    division = divide(build_network(recipe.base), settings.from_layer, settings.unfreeze_from)
    if division.boundary == division.layers[0].name:
        raise BaseNetworkError(
            "nothing below the first layer to train is frozen, so there is nothing to compute only once; "
            f"start later than {recipe.base.name}'s first layers"
        )
    return division


def _extract(recipe: Recipe, base: BaseSettings, end_to_end: bool, reporter: Reporter) -> Extraction:
    update = {"base": base, "run": recipe.run / FOLDER}
    if end_to_end:
        # photos are augmented anew in every epoch, so that no view has to be stored
        update["augment"] = None
    return extract(recipe.model_copy(update=update), reporter)


def _top(
    recipe: Recipe, division: Division, head: DenseHead, spec: BaseSpec, through: BaseSettings | None
) -> Top:
    """Return what is trained: from the boundary on, or, `through` the base up to there, from pixels on."""
    below = None if through is None else build_network(through).model
    augmentation = None if through is None else augmentation_of(recipe.augment, recipe.seed)
    pooling, seed = recipe.base.pooling, recipe.seed
    return Top(division.upper, pooling, head, seed, below, augmentation, spec.precision)


def _with_new_weights(head: DenseHead, seed: int) -> DenseHead:
    sizes = [*(len(kernel) for kernel in head.coefs_), head.coefs_[-1].shape[1]]
    weights = glorot_uniform(np.random.default_rng(seed), sizes)
    fresh = copy.copy(head)
    fresh.coefs_, fresh.intercepts_ = weights[::2], weights[1::2]
    fresh.before_, fresh.history_ = None, {name: [] for name in head.history_}
    fresh.n_iter_ = fresh.best_epoch_ = 0
    return fresh


def _plan(settings: FinetuneSettings, seed: int) -> TuningPlan:
    return TuningPlan(
        settings.optimizer,
        settings.learning_rate,
        settings.momentum,
        settings.epochs,
        settings.batch_size,
        seed,
    )


def _feed(features: Features, split: str, pixels_for: BaseSettings | None) -> Feed:
    """Return a split's features, in memory where they fit; or its photos' pixels."""
    rows = features[split]
    if pixels_for is not None:
        pixels = decode_photos(rows.paths, pixels_for)
        return InMemory(Rows.of(pixels.reshape(len(pixels), -1), rows.labels))
    if rows.views * int(np.prod(rows.shape)) * rows.dtype.itemsize > _MAX_MEMORY:
        return Streamed(rows, rows.labels, "flatten", _MAX_MEMORY)
    X, y = rows.load_views()
    return InMemory(Rows.of(X.reshape(len(X), -1), y), rows.views)


def _key(recipe: Recipe, features: Features, head: DenseHead, division: Division, end_to_end: bool) -> str:
    """Return what a fine-tuning depends on, but for its length, as 16 hexadecimal digits."""
    first = next(row.name for row in division.layers if row.trainable)
    facts = asdict(_plan(_settings(recipe), recipe.seed))
    facts |= {"epochs": None, "layers": first, "end_to_end": end_to_end}
    if end_to_end and recipe.augment is not None:  # stored views are in the features' fingerprint
        facts["augment"] = recipe.augment.model_dump(mode="json", exclude={"views"})
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    digest.update(fingerprint_of(features).encode())
    for weights in (*head.coefs_, *head.intercepts_):
        digest.update(weights.tobytes())
    return digest.hexdigest()[:16]


def _scored(model: Model, features: Features, folder: Path, seconds: float) -> HeadResult:
    """Score the model on validation and test and save it."""
    scores: dict[str, Any] = {"validation": None, "test": None}
    for split in scores:
        if split in features:
            scores[split] = _scores(model.head, features[split])
            name_classes(scores[split], model.classes)
    model.scores.update(scores)
    model.save(folder)
    return HeadResult(model.name, seconds, scores["validation"], scores["test"], folder)


def _scores(head: KerasHead, rows: Split) -> dict[str, Any]:
    """Score block by block: the boundary's features may be larger than memory."""
    probabilities = np.concatenate([head.predict_proba(X) for X, _ in rows.blocks()])
    predicted = head.classes_[probabilities.argmax(axis=1)]
    return full_scores(rows.labels, probabilities, predicted, head.classes_)
