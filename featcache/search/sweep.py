"""Stage 2b: searches for the best head on the features; an interrupted search resumes."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from featcache.errors import RecipeError, TrainingError
from featcache.evaluation.predictions import Predictions
from featcache.extraction.stage import Extraction, extract
from featcache.files import write_bytes_whole
from featcache.recipe import HeadSettings, Metric, Recipe, SelectionSettings
from featcache.reporter import SILENT, Reporter
from featcache.run.layout import (
    JOURNAL_FILE,
    LEADERBOARD_FILE,
    LEADERBOARD_TABLE,
    SWEEP_BEST,
    SWEEP_FOLDER,
)
from featcache.run.results import TestLooks
from featcache.search.finalists import choose, default_head, finish_default
from featcache.search.fitting import Job, run_trials
from featcache.search.journal import outcome_of
from featcache.search.leaderboard import Finished, Leaderboard, make_leaderboard, tied_with_best
from featcache.search.space import KIND, SearchSpace
from featcache.search.study import Study, StudySettings, trials_in_total
from featcache.training import HeadResult, train_heads
from featcache.training.data import TrainingData

_WAIT_SECONDS = 0.2


@dataclass(frozen=True)
class Sweep:
    """Result of stage 2b.

    Attributes
    ----------
    extraction : Extraction
        Result of stage 1.
    study : str
        Name of the Optuna study in the journal.
    leaderboard : Leaderboard
    best : HeadResult
        The recommended head, trained again and saved, with its scores.
    looks : TestLooks
        How often heads of the run were scored on test.
    """

    extraction: Extraction
    study: str
    leaderboard: Leaderboard
    best: HeadResult
    looks: TestLooks

    @property
    def folder(self) -> Path:
        """Folder of the journal and the leaderboard."""
        return self.extraction.run / SWEEP_FOLDER

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON-ready data."""
        return {
            "run": str(self.extraction.run),
            "features": self.extraction.to_json(),
            "study": self.study,
            "journal": str(self.folder / JOURNAL_FILE),
            "leaderboard": self.leaderboard.to_json(),
            "best": self.best.to_json(),
            "test_looks": self.looks.count,
        }


def run_sweep(recipe: Recipe, reporter: Reporter = SILENT) -> Sweep:
    """Search for the best head on a recipe's features; stage 1 runs first and computes what is missing.

    Trials are kept in ``RUN/sweep/journal.log``. An interrupted search resumes, a finished one continues when
    ``trials`` is increased, and processes that run it at the same time share the work. Other data, another
    space, metric, sampler or seed start another study in the same journal.

    Heads are scored on the same photos as those of `featcache.training.train_heads`. The default head is
    compared with all of them. The recommended head, see `featcache.search.finalists.choose`, is trained
    again, scored on test, and saved as ``RUN/models/sweep-best``. The leaderboard is written to
    ``RUN/sweep/leaderboard.csv`` and ``leaderboard.json``.

    Parameters
    ----------
    recipe : Recipe
        With the search space, the sampler and the number of trials in its section ``sweep``.
    reporter : Reporter, optional
        Receives progress and notes.

    Returns
    -------
    Sweep

    Raises
    ------
    RecipeError
        The space is invalid; this is found before any photo is read.
    TrainingError
        No head could be trained on these features.
    StoreError
        The journal cannot be written, or is damaged.
    FeatcacheError
        All that `featcache.extraction.stage.extract` raises.
    """
    space = SearchSpace(recipe.sweep.space)
    metric = _metric(recipe, space, reporter)
    total = trials_in_total(space, recipe.sweep.sampler, recipe.sweep.trials)
    extraction = extract(recipe, reporter)
    data = TrainingData(extraction, recipe)
    if data.comparison.reason:
        reporter.note(data.comparison.reason)
    _check_metric(metric, data.scored.labels, data.classes)
    if recipe.selection.method == "auto":  # with folds the metric is defined, but such photos are no sample
        _check_metric(metric, data.validation_labels, data.classes)
    space.check(metric, len(data.classes))
    settings = StudySettings.of(recipe, data.fingerprint, metric)
    with tempfile.TemporaryDirectory() as scratch:
        job = _job(recipe, data, metric, scratch)
        trials = _search(recipe, space, total, settings, job, reporter)
        leaderboard, winner = _compare(trials, space, job, data, reporter)
    _write(leaderboard, recipe.run / SWEEP_FOLDER)
    # notes about the photos and the head were given before
    training = train_heads(_recipe_of(recipe, winner, data), SILENT)
    return Sweep(extraction, settings.name, leaderboard, training[SWEEP_BEST], training.results.looks)


def _metric(recipe: Recipe, space: SearchSpace, reporter: Reporter) -> Metric:
    """Return the sweep's metric; the default is accuracy where some head of the space has no probabilities.

    Raises
    ------
    RecipeError
        Some part of the space is invalid, or cannot be scored by the metric that was asked for.
    """
    metric = recipe.sweep_metric
    try:
        space.check(metric)
        return metric
    except RecipeError:
        if recipe.sweep.metric is not None or recipe.selection.asks_for_metric:
            raise
        space.check("accuracy")
    reporter.note(f"some heads of sweep.space have no {metric}: heads are compared by accuracy")
    return "accuracy"


def _job(recipe: Recipe, data: TrainingData, metric: str, scratch: str) -> Job:
    return Job(
        data.rows["train"],
        data.rows.get("validation"),
        data.classes,
        metric,
        recipe.seed,
        scratch,
        data.views,
        data.scored.folds,
        data.sampling["train"],
        data.scored_sampling,
    )


def _search(
    recipe: Recipe, space: SearchSpace, total: int, settings: StudySettings, job: Job, reporter: Reporter
) -> dict[int, FrozenTrial]:
    """Run the trials; return the finished ones by number."""
    with Study(recipe.run / SWEEP_FOLDER, settings, space, total) as study:
        _note_state(study, total, reporter)
        _run_all_trials(study, job, recipe.sweep.timeout, total, reporter)
        return {trial.number: trial for trial in study.finished}


def _compare(
    trials: Mapping[int, FrozenTrial],
    space: SearchSpace,
    job: Job,
    data: TrainingData,
    reporter: Reporter,
) -> tuple[Leaderboard, HeadSettings]:
    """Compare the trials and the default head; return all of them and the recommended one's settings."""
    finished = _finished(trials, space)
    default, warned = finish_default(job)
    _note_new(warned, set(), reporter)
    finished = [default, *finished] if default.outcome.value is not None else finished
    # as heads are scored, without photos of weight 0
    scored = Predictions.of(
        job.scored_labels, None, job.scored_labels, range(len(job.classes)), **job.scored_sampling.columns
    )
    tied = tied_with_best(finished, job.metric, scored.weights, scored.groups)
    settings: dict[int | None, HeadSettings] = {None: default_head()}
    settings |= {number: space.settings(trial.params) for number, trial in trials.items()}
    reporter.advance("comparing", 0, 1)
    choice = choose(tied, _on_all(job, data), settings, job.metric)
    reporter.advance("comparing", 1, 1)
    return make_leaderboard(finished, job.metric, tied, choice), settings[choice.chosen.trial]


def _on_all(job: Job, data: TrainingData) -> Job:
    """Return a job that cross-validates on train and validation; with views validation stays what it is."""
    if job.validation is None or job.views > 1:
        return job
    train, validation = job.train, job.validation
    rows = np.concatenate([train[0], validation[0]]), np.concatenate([train[1], validation[1]])
    sampling = data.sampling_of_all
    return replace(
        job,
        train=rows,
        validation=None,
        folds=data.folds_of_all(),
        sampling=sampling,
        scored_sampling=sampling,
    )


def _recipe_of(recipe: Recipe, winner: HeadSettings, data: TrainingData) -> Recipe:
    """Return a recipe of the recommended head, compared on the same photos as the trials.

    Its metric is the run's, as one that was not asked for: the sweep may have gone by another, which the head
    need not have.
    """
    folds = data.comparison.folds
    method: Literal["validation", "cross_validation"] = "validation" if folds is None else "cross_validation"
    return recipe.model_copy(
        update={
            "heads": (winner.model_copy(update={"name": SWEEP_BEST}),),
            "data": recipe.data.model_copy(update={"folds": folds}),
            "selection": SelectionSettings.model_construct(
                {"method"}, metric=recipe.selection.metric, method=method
            ),
        }
    )


def _check_metric(metric: str, labels: NDArray[np.int64], classes: Sequence[str]) -> None:
    """Raise a TrainingError where the metric is not defined on the validation photos, whatever the head."""
    missing = sorted(set(range(len(classes))) - set(labels.tolist()))
    if metric in ("roc_auc", "average_precision") and missing:
        raise TrainingError(
            f"sweep.metric = {metric!r} needs validation photos of every class, and there are none of "
            f"{classes[missing[0]]!r}; add some, choose another metric, or set selection.method to "
            "'cross_validation'"
        )


def _note_state(study: Study, total: int, reporter: Reporter) -> None:
    done = len(study.finished)
    if study.others:
        reporter.note(
            f"the data or the recipe's sweep changed: a new study begins, {study.name}; the earlier trials "
            f"stay in {JOURNAL_FILE}"
        )
    elif done:
        reporter.note(f"study {study.name}: {done:,} of {total:,} trials are there already")


def _run_all_trials(study: Study, job: Job, timeout: float | None, total: int, reporter: Reporter) -> None:
    """Run trials until all are finished, also those of other processes, or the time is up."""
    began = time.monotonic()
    warned: set[str] = set()
    reporter.advance("sweeping", min(total, len(study.finished)), total)
    while not study.is_complete and (timeout is None or time.monotonic() - began < timeout):
        batch = study.ask()
        if not batch:
            time.sleep(_WAIT_SECONDS)
        for number, outcome, sentences in run_trials(job, batch):
            study.tell(number, outcome)
            reporter.advance("sweeping", min(total, len(study.finished)), total)
            _note_new(sentences, warned, reporter)
    reporter.advance("sweeping", total, total)


def _note_new(sentences: Sequence[str], warned: set[str], reporter: Reporter) -> None:
    for sentence in sentences:
        if sentence not in warned:
            warned.add(sentence)
            reporter.note(f"sweep: {sentence}")


def _finished(trials: Mapping[int, FrozenTrial], space: SearchSpace) -> list[Finished]:
    """Return a study's finished trials.

    Raises
    ------
    TrainingError
        No trial was trained to its end.
    """
    finished = [
        Finished(number, trial.params[KIND], space.searched(trial.params), outcome_of(trial))
        for number, trial in trials.items()
    ]
    if all(one.outcome.value is None or one.outcome.stopped for one in finished):
        reason = next((one.outcome.reason for one in finished if one.outcome.reason), "the time was up")
        raise TrainingError(
            f"none of the {len(finished):,} heads that were tried could be trained ({reason}); "
            "change sweep.space"
        )
    return finished


def _write(leaderboard: Leaderboard, folder: Path) -> None:
    text = json.dumps(leaderboard.to_json(), indent=1) + "\n"
    write_bytes_whole(folder / LEADERBOARD_FILE, text.encode())
    write_bytes_whole(folder / LEADERBOARD_TABLE, leaderboard.to_csv().encode())
