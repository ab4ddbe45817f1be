"""The trials of one search, in a journal on disk that several processes share.

One line of the journal starts a trial, with its parameters and its worker; later lines hold its result. A
worker holds a lock file of its own name while it runs; other workers take over the trials of a dead worker.
So every trial is finished exactly once, whichever process is killed.

Parameters are sampled in memory from the finished and the running trials of the journal, with a seed that is
derived from the study's seed and the trial's number. They depend on these trials only, and not on how often
the search was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from featcache.errors import RecipeError, StoreError
from featcache.files import explain_os_error
from featcache.recipe import DEFAULT_TRIALS, Recipe
from featcache.run.layout import JOURNAL_FILE
from featcache.search.journal import (
    CHECKSUM,
    RESULT,
    WORKER,
    check_trial,
    checksum,
    journal_errors,
    open_journal,
    quiet,
)
from featcache.search.locks import held, is_free, take
from featcache.search.space import KIND, MOST_IN_A_GRID, Params, SearchSpace
from featcache.search.trial import Outcome, TrialRequest

SMALL_BATCH, LARGE_BATCH = 16, 64
"""Smallest and largest number of trials that are started at once."""

_TRIES, _TRIES_OF_SAMPLER = 100, 10
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(frozen=True)
class StudySettings:
    """What a search depends on: searches with equal settings are one study.

    Attributes
    ----------
    data : str
        Fingerprint of features, labels and splits.
    space : dict
        The recipe's ``sweep.space`` as JSON-ready data.
    metric, sampler : str
    seed, head_seed : int
        Seeds of the sampler and of the heads.
    """

    data: str
    space: dict[str, Any]
    metric: str
    sampler: str
    seed: int
    head_seed: int

    @classmethod
    def of(cls, recipe: Recipe, data: str, metric: str | None = None) -> StudySettings:
        """Return the settings of a recipe's search, by default by its metric, on data with that hash."""
        sweep = recipe.sweep
        space = {name: kind.model_dump(mode="json") for name, kind in sweep.space.items()}
        seed = recipe.seed if sweep.seed is None else sweep.seed
        return cls(data, space, metric or recipe.sweep_metric, sweep.sampler, seed, recipe.seed)

    @property
    def name(self) -> str:
        """A name that is unique for these settings."""
        text = json.dumps(asdict(self), sort_keys=True)
        return f"heads-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """Whether lower or higher scores are better."""
        return "minimize" if self.metric == "log_loss" else "maximize"


def trials_in_total(space: SearchSpace, sampler: str, trials: int | None) -> int:
    """Return the number of trials of a search: at most the number of different heads.

    Raises
    ------
    RecipeError
        A grid is too large.
    """
    size = space.size
    if sampler == "grid" and size is not None:
        if size > MOST_IN_A_GRID:
            raise RecipeError(
                f"sweep.sampler = 'grid' with {size:,} different heads; at most {MOST_IN_A_GRID:,} are "
                "allowed: take fewer values, or sampler = 'random'"
            )
        return min(size, trials or size)
    return min(size or trials or DEFAULT_TRIALS, trials or DEFAULT_TRIALS)


def batch_size(sampler: str, total: int) -> int:
    """Return the number of trials that are started at once.

    Larger batches train more Dense heads together. TPE learns between batches only, and its first batch is
    random: it gets at least four batches where they stay large enough.
    """
    return min(LARGE_BATCH, max(SMALL_BATCH, total // 4)) if sampler == "tpe" else LARGE_BATCH


class Study:
    """An Optuna study in ``journal.log``. Use it as a context manager: leaving it ends the worker.

    Parameters
    ----------
    folder : Path
        Folder of the journal.
    settings : StudySettings
    space : SearchSpace
    total : int
        Number of trials.

    Attributes
    ----------
    name : str
    others : bool
        Whether the journal had studies with other settings only.

    Raises
    ------
    StoreError
        The journal cannot be written, or is damaged.
    """

    def __init__(self, folder: Path, settings: StudySettings, space: SearchSpace, total: int) -> None:
        self.name = settings.name
        self._settings, self._space, self._total = settings, space, total
        self._locks = folder / "locks"
        self._make(self._locks)
        self._asking = self._locks / "asking"
        self._worker = f"worker-{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}"
        self._grid: list[Params] | None = None
        with held(self._asking), quiet(), journal_errors(folder / JOURNAL_FILE):
            self._alive = take(self._locks / self._worker)
            self._storage = open_journal(folder / JOURNAL_FILE, self._locks / "journal")
            known = optuna.get_all_study_names(self._storage)
            self.others = bool(known) and self.name not in known
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=self.name,
                direction=settings.direction,
                sampler=optuna.samplers.RandomSampler(0),  # the journal's own; it never draws
                load_if_exists=True,
            )
            if self.name not in known:
                self._study.set_user_attr("settings", asdict(settings))
            for trial in self._study.get_trials(deepcopy=False):
                check_trial(trial, space)
        self._id = self._storage.get_study_id_from_name(self.name)

    @staticmethod
    def _make(folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(explain_os_error(error, folder)) from None

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_: object) -> None:
        self._alive.release()
        (self._locks / self._worker).unlink(missing_ok=True)

    @property
    def finished(self) -> list[FrozenTrial]:
        """The finished trials, also failed ones, by number."""
        return self._study.get_trials(deepcopy=False, states=_FINISHED)

    @property
    def is_complete(self) -> bool:
        """Whether all trials are finished, also those of other processes."""
        trials = self._study.get_trials(deepcopy=False)
        return len(trials) >= self._total and all(trial.state.is_finished() for trial in trials)

    def ask(self) -> list[TrialRequest]:
        """Return the next trials to run; none when all are finished or run by other processes.

        Trials of a dead process come first. A batch always ends at a multiple of its size, so that an
        interrupted search forms the same batches as an uninterrupted one.
        """
        with held(self._asking), quiet():
            dead = self._dead_workers()
            # read after that: a dead worker's trials no longer change
            trials = self._study.get_trials(deepcopy=False)
            left = [trial for trial in trials if _is_running(trial) and trial.user_attrs[WORKER] in dead]
            for trial in left:
                self._storage.set_trial_user_attr(self._trial_id(trial.number), WORKER, self._worker)
            batch = [TrialRequest(trial.number, self._space.settings(trial.params)) for trial in left]
            return batch + self._ask_new(trials, self._new_trials(len(trials), bool(left)))

    def _dead_workers(self) -> set[str]:
        """Return the workers that ended with unfinished trials."""
        running = filter(_is_running, self._study.get_trials(deepcopy=False))
        return {worker for worker in {t.user_attrs[WORKER] for t in running} if not self._lives(worker)}

    def _lives(self, worker: str) -> bool:
        path = self._locks / worker
        if not is_free(path):
            return True
        path.unlink(missing_ok=True)
        return False

    def _new_trials(self, started: int, some_left: bool) -> int:
        size = batch_size(self._settings.sampler, self._total)
        if some_left and started % size == 0:
            return 0
        return max(0, min(self._total, (started // size + 1) * size) - started)

    def _ask_new(self, trials: Sequence[FrozenTrial], count: int) -> list[TrialRequest]:
        if not count:
            return []
        memory = optuna.create_study(direction=self._settings.direction)
        memory.add_trials(trials)
        seen = {_key(trial.params) for trial in trials}
        batch = []
        for number in range(len(trials), len(trials) + count):
            drawn = self._draw(memory, number, seen)
            seen.add(_key(drawn.params))
            # one line of the journal, so that no trial is half started
            self._study.add_trial(
                optuna.create_trial(
                    state=TrialState.RUNNING,
                    params=drawn.params,
                    distributions=drawn.distributions,
                    user_attrs={WORKER: self._worker, CHECKSUM: checksum(number, drawn.params)},
                )
            )
            batch.append(TrialRequest(number, self._space.settings(drawn.params)))
        return batch

    def _draw(self, memory: optuna.Study, number: int, seen: set[frozenset[Any]]) -> optuna.Trial:
        """Sample parameters that no other trial has."""
        if self._settings.sampler == "grid":
            return self._draw_given(memory, self._shuffled_grid()[number])
        some_left = self._space.some_left(dict(key)[KIND] for key in seen)
        for attempt in range(_TRIES):
            memory.sampler = self._sampler(number, attempt)
            if attempt:
                # the sampler does not know that all heads of a kind were tried, and would repeat it
                memory.enqueue_trial({KIND: some_left[self._seed(number, attempt) % len(some_left)]})
            trial = memory.ask()
            self._space.suggest(trial)
            if _key(trial.params) not in seen:
                return trial
            memory.tell(trial, state=TrialState.FAIL)
        if self._space.size is None:
            return trial
        return self._draw_given(memory, next(one for one in self._space.grid() if _key(one) not in seen))

    def _draw_given(self, memory: optuna.Study, params: Params) -> optuna.Trial:
        memory.enqueue_trial(params)
        trial = memory.ask()
        self._space.suggest(trial)
        return trial

    def _shuffled_grid(self) -> list[Params]:
        if self._grid is None:
            # neighbours are similar: a search that is stopped early should have covered the whole grid
            grid = list(self._space.grid())
            order = np.random.default_rng(self._settings.seed).permutation(len(grid))
            self._grid = [grid[at] for at in order]
        return self._grid

    def _sampler(self, number: int, attempt: int) -> optuna.samplers.BaseSampler:
        seed = self._seed(number, attempt)
        # with few values TPE can propose the same ones again and again
        if self._settings.sampler == "random" or attempt >= _TRIES_OF_SAMPLER:
            return optuna.samplers.RandomSampler(seed)
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=SMALL_BATCH, constant_liar=True)

    def _seed(self, number: int, attempt: int) -> int:
        sequence = np.random.SeedSequence([self._settings.seed, number, attempt])
        return int(sequence.generate_state(1)[0])

    def tell(self, number: int, outcome: Outcome) -> None:
        """Record the result of a trial that this process has run."""
        trial_id = self._trial_id(number)
        result = outcome.to_json()
        result[CHECKSUM] = checksum(number, self._storage.get_trial(trial_id).params, result)
        self._storage.set_trial_user_attr(trial_id, RESULT, result)
        if outcome.value is None:
            self._study.tell(number, state=TrialState.FAIL)
        elif outcome.stopped:
            # Optuna takes the last intermediate value as that of the trial
            self._storage.set_trial_intermediate_value(trial_id, outcome.epochs or 0, outcome.value)
            self._study.tell(number, state=TrialState.PRUNED)
        else:
            self._study.tell(number, outcome.value)

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)


def _is_running(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.RUNNING


def _key(params: Mapping[str, Any]) -> frozenset[Any]:
    return frozenset(params.items())
