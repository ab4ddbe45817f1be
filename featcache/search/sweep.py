"""Stage 2b: searches for the best head on the features; an interrupted search resumes."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from featcache.errors import RecipeError, TrainingError
from featcache.extraction.stage import Extraction, extract
from featcache.files import write_bytes_whole
from featcache.recipe import Recipe
from featcache.reporter import SILENT, Reporter
from featcache.run.layout import (
    JOURNAL_FILE,
    LEADERBOARD_FILE,
    LEADERBOARD_TABLE,
    SWEEP_BEST,
    SWEEP_FOLDER,
)
from featcache.search.fitting import Job, run_trials
from featcache.search.journal import outcome_of
from featcache.search.leaderboard import Finished, Leaderboard, make_leaderboard
from featcache.search.space import KIND, SearchSpace
from featcache.search.study import Study, StudySettings, trials_in_total
from featcache.training import HeadResult, fingerprint_of, train_heads

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
    """

    extraction: Extraction
    study: str
    leaderboard: Leaderboard
    best: HeadResult

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
        }


def run_sweep(recipe: Recipe, reporter: Reporter = SILENT) -> Sweep:
    """Search for the best head on a recipe's features; stage 1 runs first and computes what is missing.

    Trials are kept in ``RUN/sweep/journal.log``. An interrupted search resumes, a finished one continues when
    ``trials`` is increased, and processes that run it at the same time share the work. Other data, another
    space, metric, sampler or seed start another study in the same journal.

    The recommended head, see `featcache.search.leaderboard.make_leaderboard`, is trained again, scored on
    validation and test, and saved as ``RUN/models/sweep-best``. The leaderboard is written to
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
        The space is invalid, or there are ``data.folds``; this is found before any photo is read.
    TrainingError
        No head could be trained on these features.
    StoreError
        The journal cannot be written, or is damaged.
    FeatcacheError
        All that `featcache.extraction.stage.extract` raises.
    """
    if recipe.data.folds is not None:
        raise RecipeError(
            f"data.folds = {recipe.data.folds}: a sweep scores heads on the validation photos; remove folds"
        )
    space = SearchSpace(recipe.sweep.space)
    space.check(recipe.sweep.metric)
    total = trials_in_total(space, recipe.sweep.sampler, recipe.sweep.trials)
    extraction = extract(recipe, reporter)
    name, trials = _search(recipe, space, total, extraction, reporter)
    leaderboard = _leaderboard(trials, space, recipe.sweep.metric)
    _write(leaderboard, recipe.run / SWEEP_FOLDER)
    winner = space.settings(trials[leaderboard.recommended.finished.trial].params)
    heads = (winner.model_copy(update={"name": SWEEP_BEST}),)
    # notes about the photos and the head were given before
    training = train_heads(recipe.model_copy(update={"heads": heads}), SILENT)
    return Sweep(extraction, name, leaderboard, training[SWEEP_BEST])


def _search(
    recipe: Recipe, space: SearchSpace, total: int, extraction: Extraction, reporter: Reporter
) -> tuple[str, dict[int, FrozenTrial]]:
    """Run the trials; return the study's name and its finished trials by number."""
    with extraction.open() as features:
        _check_metric(recipe.sweep.metric, features["validation"].labels, features.classes)
        space.check(recipe.sweep.metric, len(features.classes))
        settings = StudySettings.of(recipe, fingerprint_of(features))
        job = Job(
            features["train"].load_views(),
            features["validation"].load(),
            features.classes,
            recipe.sweep.metric,
            recipe.seed,
            views=features["train"].views,
        )
    with (
        Study(recipe.run / SWEEP_FOLDER, settings, space, total) as study,
        tempfile.TemporaryDirectory() as scratch,
    ):
        _note_state(study, total, reporter)
        _run_all_trials(study, replace(job, scratch=scratch), recipe.sweep.timeout, total, reporter)
        return study.name, {trial.number: trial for trial in study.finished}


def _check_metric(metric: str, labels: NDArray[np.int64], classes: Sequence[str]) -> None:
    """Raise a TrainingError where the metric is not defined on the validation photos, whatever the head."""
    missing = sorted(set(range(len(classes))) - set(labels.tolist()))
    if metric == "roc_auc" and missing:
        raise TrainingError(
            f"sweep.metric = 'roc_auc' needs validation photos of every class, and there are none of "
            f"{classes[missing[0]]!r}; add some, or choose another metric"
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


def _leaderboard(trials: dict[int, FrozenTrial], space: SearchSpace, metric: str) -> Leaderboard:
    """Return the leaderboard of a study's finished trials.

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
    return make_leaderboard(finished, metric)


def _write(leaderboard: Leaderboard, folder: Path) -> None:
    text = json.dumps(leaderboard.to_json(), indent=1) + "\n"
    write_bytes_whole(folder / LEADERBOARD_FILE, text.encode())
    write_bytes_whole(folder / LEADERBOARD_TABLE, leaderboard.to_csv().encode())
