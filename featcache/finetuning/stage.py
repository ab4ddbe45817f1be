"""Stage 3: fine-tunes the top layers of the base together with a head, on cached features of the boundary."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from featcache.bases.boundary import LayerRow, SplitNetwork, split_at
from featcache.bases.sources import build_network
from featcache.bases.spec import BaseSpec
from featcache.errors import BaseNetworkError, RecipeError, TrainingError, did_you_mean
from featcache.evaluation import full_scores
from featcache.extraction.stage import Extraction, extract
from featcache.featurize import decode_photos
from featcache.files import write_bytes_whole
from featcache.finetuning.augmentation import augmentation_of
from featcache.finetuning.checkpoints import History
from featcache.finetuning.loop import FinetuneParams, train_top
from featcache.finetuning.top import Top
from featcache.heads.dense.feed import Feed, InMemory, Rows, Streamed
from featcache.heads.dense.head import DenseHead
from featcache.heads.dense.training import glorot_uniform
from featcache.heads.keras_head import KerasHead
from featcache.model import Model
from featcache.model_photos import ModelPhotos
from featcache.recipe import BaseSettings, FinetuneSettings, Recipe
from featcache.reporter import SILENT, Reporter
from featcache.run.layout import FINETUNE_FOLDER, FINETUNED, HISTORY_FILE, model_folder
from featcache.run.predictions import HeadPredictions, RunPredictions, ScoredRows
from featcache.run.results import (
    HeadFailure,
    HeadResult,
    RunResults,
    TestLooks,
    best_head,
    update_results,
)
from featcache.store.feature_file import Features
from featcache.store.split import Split
from featcache.training import Training, failures_sentence, fingerprint_of, name_classes, train_heads
from featcache.training.data import photos_hash
from featcache.training.novelty import conformal_of, novelty_of
from featcache.training.sampling import Sampling

_MAX_MEMORY = 2 << 30


@dataclass(frozen=True)
class Finetuning:
    """Result of stage 3.

    Attributes
    ----------
    head : str
        Name of the trained head that fine-tuning started from.
    started_from : DenseHead
        That head, with its measures before and after each epoch.
    fresh_head : bool
        Whether its weights were reinitialized before, so that it has no epochs of its own.
    boundary : str
        The layer whose output was cached.
    layers : tuple of LayerRow
        Of the whole network.
    history : History
        Measures before and after each epoch.
    extraction : Extraction
        Of the boundary's features.
    seconds : float
        Of the training.
    result : HeadResult
        The fine-tuned model, of the best epoch.
    results : RunResults
        All heads of the run, the fine-tuned one among them.
    """

    head: str
    started_from: DenseHead
    fresh_head: bool
    boundary: str
    layers: tuple[LayerRow, ...]
    history: History
    extraction: Extraction
    seconds: float
    result: HeadResult
    results: RunResults

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
            "before": self.history.before,
            "history": self.history.per_epoch,
            "best_epoch": self.history.best_epoch,
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
    """Fine-tune the top layers of the base together with a trained head; earlier stages run first.

    Heads that the run has with the same settings and data are loaded, and missing ones are trained.
    The boundary is the last layer before the first trainable one that all paths of the network go through.
    Its output is extracted once and kept in the store; the layers above are trained on it. The results equal
    those of training through the whole network, but its frozen part does not run in every epoch. An
    interrupted run resumes after its last complete epoch. The weights of the epoch with the best validation
    score are kept, by the metric of the section ``selection``.

    With a section ``augment`` each epoch uses one stored view of each training photo.

    Parameters
    ----------
    recipe : Recipe
        With a section ``finetune``.
    reporter : Reporter, optional
        Receives progress and notes.
    end_to_end : bool, default False
        Train through the whole network, for comparison. With a section ``augment`` Keras then augments the
        photos in every epoch.
    score_epochs : bool, default False
        Score every epoch on test, too.

    Raises
    ------
    RecipeError
        There is no section ``finetune``, it names an unknown head, or there are ``data.folds``.
    BaseNetworkError
        There is no such layer. This and the above are found before any photo is read and anything is written.
    TrainingError
        The head or the fine-tuning diverged.
    FeatcacheError
        All that `featcache.extraction.stage.extract` raises.
    """
    division = _divide(recipe, check_finetuning(recipe))
    training = train_heads(recipe.with_heads(_dense_heads(recipe)), reporter, reuse=True)
    return _finetune(recipe, division, training, reporter, end_to_end, score_epochs)


def _finetune(
    recipe: Recipe,
    division: SplitNetwork,
    training: Training,
    reporter: Reporter,
    end_to_end: bool = False,
    score_epochs: bool = False,
) -> Finetuning:
    """Fine-tune from the best of the trained heads; see `finetune`."""
    settings = check_finetuning(recipe)
    started_from = _best_dense(recipe, training, reporter)
    head = _with_new_weights(started_from.head, recipe.seed) if settings.fresh_head else started_from.head
    base = recipe.base.model_copy(update={"layer": division.boundary, "pooling": "none"})
    extraction = _extract(recipe, base, end_to_end, reporter)
    with extraction.open() as features:
        top = _top(recipe, division, head, BaseSpec.from_json(features.base), base if end_to_end else None)
        feeds = _feeds(features, base if end_to_end else None, score_epochs)
        key = _key(recipe, features, head, division, end_to_end)
        started = time.monotonic()
        history = _train(recipe, top, feeds, key, reporter)
        seconds = time.monotonic() - started
        spec, tuned = BaseSpec.from_json(features.base), top.classifier(history.per_epoch)
        photos = ModelPhotos.of(features["train"].digests, features["validation"].digests)
        novelty = novelty_of(features, recipe.seed)
        model = Model(
            FINETUNED,
            started_from.classes,
            base,
            spec,
            tuned,
            {},
            recipe.cache,
            photos=photos,
            novelty=novelty,
        )
        result, predictions = _scored(model, features, recipe.run, seconds)
        looks = _test_looks(features, history.epochs if score_epochs else 0)
    predictions = replace(predictions, data=training.results.data)
    metric = recipe.selection.metric
    results = update_results(
        recipe.run, [result], predictions, note=reporter.note, metric=metric, looks=looks
    )
    finetuning = Finetuning(
        started_from.name,
        head,
        settings.fresh_head,
        division.boundary,
        division.layers,
        history,
        extraction,
        seconds,
        results[FINETUNED],
        results,
    )
    _write_history(finetuning, recipe.run)
    return finetuning


def train_and_finetune(recipe: Recipe, reporter: Reporter = SILENT) -> tuple[Training, Finetuning | None]:
    """Train the recipe's heads and, where it has a section ``finetune``, fine-tune.

    Returns
    -------
    training : Training
        Its ``best`` takes the fine-tuned model into account. A fine-tuning that diverged, or had no head to
        start from, is in ``failed``.
    finetuning : Finetuning or None

    Raises
    ------
    FeatcacheError
        All that `train_heads` and `finetune` raise.
    """
    if recipe.finetune is None:
        return train_heads(recipe, reporter), None
    division = _divide(recipe, check_finetuning(recipe))  # before the heads are trained
    training = train_heads(recipe, reporter)
    try:
        finetuning = _finetune(recipe, division, training, reporter)
    except TrainingError as error:
        failure = HeadFailure(FINETUNED, str(error))
        return replace(training, failed=(*training.failed, failure)), None
    return replace(training, results=finetuning.results), finetuning


def check_finetuning(recipe: Recipe) -> FinetuneSettings:
    """Return the recipe's section ``finetune``.

    Raises
    ------
    RecipeError
        There is none, it names an unknown head, or it does not go with the rest of the recipe.
    """
    if recipe.finetune is None:
        raise RecipeError(
            "the recipe has no [finetune]; give the first layer to train, for example "
            "--set finetune.unfreeze_from=100, or from_layer with a layer's name"
        )
    if recipe.trains_on_validation:
        asked = "selection.method = 'cross_validation'"
        asked = asked if recipe.data.folds is None else f"data.folds = {recipe.data.folds}"
        raise RecipeError(
            f"{asked} does not go with [finetune]: with folds heads learn from the "
            "validation photos, and fine-tuning would choose its best epoch on them; remove one of the two"
        )
    dense = _dense_names(recipe)
    head = recipe.finetune.head
    if head is not None and head not in dense:
        raise RecipeError(
            f"finetune.head = {head!r} is not a Dense head of the recipe; those are "
            f"{', '.join(dense) or 'none'}.{did_you_mean(head, dense)}"
        )
    if not dense:
        raise RecipeError('fine-tuning starts from a Dense head; add [[heads]] with type = "dense"')
    return recipe.finetune


def _dense_names(recipe: Recipe) -> list[str]:
    return [str(head.name) for head in recipe.heads if head.type == "dense"]


def _dense_heads(recipe: Recipe) -> list[str]:
    """Return the names of the heads to choose from: the one that the recipe names, or all Dense heads."""
    settings = check_finetuning(recipe)
    return [settings.head] if settings.head is not None else _dense_names(recipe)


def _best_dense(recipe: Recipe, training: Training, reporter: Reporter) -> Model:
    """Return the model of the best Dense head to choose from; heads that could not be trained are said.

    Raises
    ------
    TrainingError
        None of them could be trained.
    """
    names = _dense_heads(recipe)
    failed = [one for one in training.failed if one.name in names]
    trained = [training[name] for name in names if name in training.models]
    if not trained:
        raise TrainingError(f"there is no Dense head to start from; {failures_sentence(failed, len(names))}")
    best = best_head(trained, recipe.selection.metric).name
    if failed:
        reporter.note(f"fine-tuning starts from {best}; {failures_sentence(failed, len(names))}")
    return training.models[best]


def _divide(recipe: Recipe, settings: FinetuneSettings) -> SplitNetwork:
    division = split_at(build_network(recipe.base), settings.from_layer, settings.unfreeze_from)
    if division.boundary == division.layers[0].name:
        raise BaseNetworkError(
            "nothing below the first layer to train is frozen, so there is nothing to compute only once; "
            f"start later than {recipe.base.name}'s first layers"
        )
    return division


def _extract(recipe: Recipe, base: BaseSettings, end_to_end: bool, reporter: Reporter) -> Extraction:
    update = {"base": base, "run": recipe.run / FINETUNE_FOLDER}
    if end_to_end:
        # Keras augments the photos in every epoch: no view has to be stored
        update["augment"] = None
    return extract(recipe.model_copy(update=update), reporter)


def _top(
    recipe: Recipe, division: SplitNetwork, head: DenseHead, spec: BaseSpec, through: BaseSettings | None
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


def _train(recipe: Recipe, top: Top, feeds: dict[str, Feed], key: str, reporter: Reporter) -> History:
    settings = check_finetuning(recipe)
    return train_top(
        top,
        feeds,
        _params(settings, recipe.seed),
        recipe.run / FINETUNE_FOLDER / f"epochs-{key}",
        lambda done: reporter.advance("fine-tuning", done, settings.epochs),
        reporter.note,
        recipe.selection.metric,
    )


def _params(settings: FinetuneSettings, seed: int) -> FinetuneParams:
    return FinetuneParams(
        settings.optimizer,
        settings.learning_rate,
        settings.momentum,
        settings.epochs,
        settings.batch_size,
        seed,
    )


def _feeds(features: Features, pixels_for: BaseSettings | None, score_test: bool) -> dict[str, Feed]:
    splits = [split for split in features.splits if split != "test" or score_test]
    return {split: _feed(features, split, pixels_for) for split in splits}


def _feed(features: Features, split: str, pixels_for: BaseSettings | None) -> Feed:
    """Return a split's features, in memory where they fit; or its photos' pixels."""
    rows = features[split]
    if pixels_for is not None:
        pixels = decode_photos(rows.paths, pixels_for)
        return InMemory(Rows.of(pixels.reshape(len(pixels), -1), rows.labels, weights=rows.weights))
    if rows.views * int(np.prod(rows.shape)) * rows.dtype.itemsize > _MAX_MEMORY:
        return Streamed(rows, rows.labels, "flatten", _MAX_MEMORY, rows.weights.astype(np.float32))
    X, y = rows.load_views()
    return InMemory(Rows.of(X.reshape(len(X), -1), y, weights=rows.weights.repeat(rows.views)), rows.views)


def _key(
    recipe: Recipe, features: Features, head: DenseHead, division: SplitNetwork, end_to_end: bool
) -> str:
    """Return what a fine-tuning depends on, but for its length, as 16 hexadecimal digits."""
    first = next(row.name for row in division.layers if row.trainable)
    facts = asdict(_params(check_finetuning(recipe), recipe.seed))
    facts |= {"epochs": None, "layers": first, "end_to_end": end_to_end}
    if recipe.selection.metric not in ("log_loss", "accuracy"):  # which are always measured
        facts["metric"] = recipe.selection.metric
    if end_to_end and recipe.augment is not None:  # stored views are in the features' fingerprint
        facts["augment"] = recipe.augment.model_dump(mode="json", exclude={"views"})
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    digest.update(fingerprint_of(features).encode())
    for weights in (*head.coefs_, *head.intercepts_):
        digest.update(weights.tobytes())
    return digest.hexdigest()[:16]


def _scored(model: Model, features: Features, run: Path, seconds: float) -> tuple[HeadResult, RunPredictions]:
    """Score the model on validation and test and save it."""
    validation = features["validation"]
    predictions = _predictions(model.head, validation)
    scores: dict[str, Any] = {"validation": _scores(model, validation, predictions), "test": None}
    if "test" in features:
        test = features["test"]
        scores["test"] = _scores(model, test, _predictions(model.head, test))
    model.scores.update(scores)
    rows = ScoredRows(validation.digests, validation.labels, None, **Sampling.of([validation]).columns)
    model.conformal = conformal_of(predictions, rows)
    folder = model_folder(run, model.name)
    model.save(folder)
    kept = RunPredictions(fingerprint_of(features), model.classes, rows, {model.name: predictions})
    return HeadResult(model.name, seconds, scores["validation"], scores["test"], folder), kept


def _test_looks(features: Features, epochs: int) -> TestLooks:
    """Count the scorings on test: of the model, and of so many epochs."""
    return TestLooks(1 + epochs, photos_hash(features["test"])) if "test" in features else TestLooks()


def _predictions(head: KerasHead, rows: Split) -> HeadPredictions:
    """Predict block by block: the boundary's features may be larger than memory."""
    probabilities = np.concatenate([head.predict_proba(X) for X, _ in rows.blocks()])
    return HeadPredictions(probabilities.argmax(axis=1), probabilities)


def _scores(model: Model, rows: Split, predictions: HeadPredictions) -> dict[str, Any]:
    classes = model.head.classes_
    predicted = classes[predictions.predicted]
    columns = Sampling.of([rows]).columns
    scores = full_scores(rows.labels, predictions.probabilities, predicted, classes, **columns)
    name_classes(scores, model.classes)
    return scores


def _write_history(result: Finetuning, run: Path) -> None:
    """Keep the epochs in the run, so that reports can draw them without the model."""
    facts = {key: value for key, value in result.to_json().items() if key not in ("run", "features", "model")}
    path = run / FINETUNE_FOLDER / HISTORY_FILE
    write_bytes_whole(path, (json.dumps(facts, indent=1) + "\n").encode())
