"""Stage 2: trains the recipe's heads on a feature file, scores and saves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from featcache.errors import ModelError, RecipeError, TrainingError
from featcache.evaluation.calls import first_line
from featcache.evaluation.choosing import missing_for
from featcache.extraction.stage import Extraction, extract
from featcache.heads.estimators import build_head
from featcache.model import Model
from featcache.recipe import HeadSettings, Recipe
from featcache.reporter import SILENT, Reporter
from featcache.run.predictions import RunPredictions
from featcache.run.results import (
    HeadFailure,
    HeadResult,
    RunResults,
    TestLooks,
    best_head,
    read_predictions,
    read_results,
    update_results,
)
from featcache.training.data import TrainingData
from featcache.training.head import (
    TrainedHead,
    scored_on_test,
    train_head,
    trained_from,
    with_class_numbers,
)


@dataclass(frozen=True)
class Training:
    """Result of stage 2.

    Attributes
    ----------
    extraction : Extraction
        Result of stage 1.
    heads : tuple of HeadResult
        The heads that were trained, in the recipe's order.
    results : RunResults
        All heads of the run, also those that were trained before on the same data.
    models : dict of str to Model
        The models of `heads`, in memory.
    failed : tuple of HeadFailure
        The heads that could not be trained, with the reasons.
    """

    extraction: Extraction
    heads: tuple[HeadResult, ...]
    results: RunResults
    models: Mapping[str, Model] = field(default_factory=dict, repr=False, compare=False)
    failed: tuple[HeadFailure, ...] = ()

    @property
    def best(self) -> str:
        """Name of the best head of the run, see `featcache.run.results.best_head`."""
        return self.results.best.name

    def __getitem__(self, name: str) -> HeadResult:
        """Return a head of the run by name.

        Raises
        ------
        TrainingError
            It could not be trained.
        KeyError
            The run has no such head.
        """
        for failure in self.failed:
            if failure.name == name:
                raise TrainingError(f"head {name!r}: {failure.reason}")
        found = {head.name: head for head in (*self.results.heads, *self.heads)}
        return found[name]

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON-ready data."""
        return {
            "run": str(self.extraction.run),
            "features": self.extraction.to_json(),
            "heads": [head.to_json() for head in self.heads],
            "failed": [failure.to_json() for failure in self.failed],
            "best": self.best,
            "metric": self.results.metric,
            "test_looks": self.results.looks.count,
        }


def train_heads(recipe: Recipe, reporter: Reporter = SILENT, *, reuse: bool = False) -> Training:
    """Train the recipe's heads on its features; stage 1 runs first and computes what is missing.

    A head that cannot be trained, scored or saved is in ``failed`` of the result, the others in ``heads``.

    Parameters
    ----------
    recipe : Recipe
    reporter : Reporter, optional
        Receives progress and notes.
    reuse : bool, default False
        Load the heads that the run already has with the same settings, seed and data; train only the others.

    Returns
    -------
    Training

    Raises
    ------
    RecipeError
        A head's settings are invalid; this is found before any photo is read. Or a head has a weight for a
        class that the photos do not have; this is found before any head is trained.
    TrainingError
        None of the heads can be trained on these features.
    FeatcacheError
        All that `featcache.extraction.stage.extract` raises.
    """
    heads = [(settings, build_head(settings, recipe.seed)) for settings in recipe.heads]
    _refuse_calibration_on_folds(recipe)
    _refuse_unscored(recipe, heads)
    extraction = extract(recipe, reporter)
    data = TrainingData(extraction, recipe)
    metric = recipe.selection.metric
    _note_comparison(recipe, data, heads, reporter)
    heads = [(one, with_class_numbers(one, head, data.classes, recipe.seed)) for one, head in heads]
    known, results = _reusable(recipe, data, reporter) if reuse else ({}, None)
    if results is not None and len(known) == len(heads):
        results = replace(results, metric=metric)
        return _training(extraction, results, [known[str(settings.name)] for settings, _ in heads])
    trained, failed = _train_all(recipe, heads, known, data, reporter)
    trained, looks = _score_best_on_test(trained, data, failed, metric)
    trained = _save_models(trained, failed)
    if not trained:
        raise TrainingError(failures_sentence(failed, len(heads)))
    results = _save_results(recipe, trained, failed, data, extraction, metric, looks, reporter)
    return _training(extraction, results, trained, failed)


def failures_sentence(failed: Sequence[HeadFailure], heads: int) -> str:
    """Say how many of so many heads could not be trained, and why."""
    reasons = "; ".join(f"{one.name}: {one.reason}" for one in failed)
    return f"{len(failed):,} of {heads:,} heads could not be trained: {reasons}"


def _train_all(
    recipe: Recipe,
    heads: Sequence[tuple[HeadSettings, Any]],
    known: Mapping[str, TrainedHead],
    data: TrainingData,
    reporter: Reporter,
) -> tuple[list[TrainedHead], list[HeadFailure]]:
    """Train the heads that are not known; return the trained ones and the failures of the others."""
    trained: list[TrainedHead] = []
    failed: list[HeadFailure] = []
    _ = data.scored  # too few photos for the folds are found before any training
    if data.novelty is None:
        reporter.note("no class has two photos of different groups: the models have no novelty score")
    reporter.advance("training", 0, len(heads))
    for done, (settings, head) in enumerate(heads, start=1):
        name = str(settings.name)
        try:
            trained.append(known.get(name) or train_head(recipe, settings, head, data, reporter))
        except TrainingError as error:
            failed.append(HeadFailure(name, first_line(error)))
        except MemoryError:
            failed.append(HeadFailure(name, "out of memory; use fewer photos, or pooling or pca before it"))
        reporter.advance("training", done, len(heads))
    return trained, failed


def _training(
    extraction: Extraction,
    results: RunResults,
    trained: Sequence[TrainedHead],
    failed: Sequence[HeadFailure] = (),
) -> Training:
    listed = {head.name: head for head in results.heads}
    models = {one.result.name: one.model for one in trained}
    return Training(extraction, tuple(listed[name] for name in models), results, models, tuple(failed))


def _refuse_calibration_on_folds(recipe: Recipe) -> None:
    for settings in recipe.heads:
        asked = "data.folds" if recipe.data.folds is not None else "selection.method = 'cross_validation'"
        if recipe.trains_on_validation and settings.calibrate != "none":
            raise RecipeError(
                f"head {settings.name!r}: calibrate = {settings.calibrate!r} needs validation photos that it "
                f"is not trained on, and with {asked} it is trained on all; remove one of the two"
            )


def _refuse_unscored(recipe: Recipe, heads: Sequence[tuple[HeadSettings, Any]]) -> None:
    """Raise a RecipeError where a head cannot be compared by the metric that the recipe gives."""
    metric = recipe.selection.metric
    for settings, head in heads if recipe.selection.asks_for_metric else ():
        missing = None if settings.calibrate != "none" else missing_for(metric, head)
        if missing is not None:
            raise RecipeError(
                f"head {settings.name!r}: {settings.type} has {missing}, which selection.metric = {metric!r} "
                "needs; choose another metric, such as 'accuracy', or another head"
            )


def _note_comparison(
    recipe: Recipe, data: TrainingData, heads: Sequence[tuple[HeadSettings, Any]], reporter: Reporter
) -> None:
    """Say on which photos heads are compared, if that was not asked for, and which lack the metric."""
    if data.comparison.reason:
        reporter.note(data.comparison.reason)
    metric, classes = recipe.selection.metric, len(data.classes)
    without = [
        str(settings.name)
        for settings, head in heads
        if settings.calibrate == "none" and missing_for(metric, head, classes) is not None
    ]
    if without:
        reporter.note(
            f"heads are compared by {metric}, and {', '.join(without)} cannot: heads without it come last, "
            "compared by accuracy; set selection.metric to 'accuracy' to compare all by it"
        )


def _reusable(
    recipe: Recipe, data: TrainingData, reporter: Reporter
) -> tuple[dict[str, TrainedHead], RunResults | None]:
    """Load the heads of the run that training would give again; return them with all results of the run."""
    results = read_results(recipe.run, reporter.note)
    if results is None or results.data != data.fingerprint:
        return {}, None
    keys = {str(settings.name): trained_from(settings, recipe.seed) for settings in recipe.heads}
    found = [one for one in results.heads if keys.get(one.name) == one.trained_from and one.is_saved]
    predictions = read_predictions(recipe.run)
    kept = predictions.heads if predictions is not None else {}
    return {one.name: TrainedHead(Model.load(one.model), one, kept.get(one.name)) for one in found}, results


def _score_best_on_test(
    trained: list[TrainedHead], data: TrainingData, failed: list[HeadFailure], metric: str
) -> tuple[list[TrainedHead], TestLooks]:
    """Score the best of the heads on test, and no other: test must have no part in the choice.

    A head that cannot predict the test photos is moved to `failed`, and the best of the others is scored.
    """
    while trained:
        name = best_head((one.result for one in trained), metric).name
        place = [one.result.name for one in trained].index(name)
        try:
            best = scored_on_test(trained[place], data)
            looks = TestLooks(int(best is not trained[place]), data.test_photos)
            return [*trained[:place], best, *trained[place + 1 :]], looks
        except TrainingError as error:
            failed.append(HeadFailure(name, first_line(error)))
            trained = [*trained[:place], *trained[place + 1 :]]
    return trained, TestLooks()


def _save_models(trained: Sequence[TrainedHead], failed: list[HeadFailure]) -> list[TrainedHead]:
    """Save the models that are new; one that cannot be saved is moved to `failed`."""
    saved = []
    for one in trained:
        scores = {"validation": one.result.validation, "test": one.result.test}
        try:
            if one.model.scores != scores:
                one.model.scores.update(scores)
                one.model.save(one.result.model)
            saved.append(one)
        except ModelError as error:
            failed.append(HeadFailure(one.result.name, first_line(error)))
    return saved


def _save_results(
    recipe: Recipe,
    trained: Sequence[TrainedHead],
    failed: Sequence[HeadFailure],
    data: TrainingData,
    extraction: Extraction,
    metric: str,
    looks: TestLooks,
    reporter: Reporter,
) -> RunResults:
    """Enter the heads into the run."""
    predictions = {one.result.name: one.predictions for one in trained if one.predictions is not None}
    return update_results(
        recipe.run,
        [one.result for one in trained],
        RunPredictions(data.fingerprint, data.classes, data.scored, predictions),
        extraction.to_json(),
        reporter.note,
        failed,
        metric,
        looks,
    )
