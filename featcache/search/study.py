"""The trials of one search, in a journal on disk that processes share and that any of them may leave.

A trial is asked with its parameters and its worker in one line of the journal, and told in the end. A worker
lives as long as it holds the lock that is called like it; the trials which a dead worker left are taken over.
So every trial is finished once, whoever is killed.

Parameters are drawn in memory from the finished and the running trials of the journal, by a sampler whose
seed follows from the study's and the trial's number. What is drawn depends on these trials alone, and not on
how often the search was ended and begun again.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from featcache.errors import RecipeError, StoreError
from featcache.files import explain_os_error
from featcache.recipe import DEFAULT_TRIALS, Recipe
from featcache.search.locks import FileLock
from featcache.search.space import KIND, MOST_IN_A_GRID, Params, SearchSpace
from featcache.search.trial import Asked, Outcome

SMALL_BATCH, LARGE_BATCH = 16, 64
"""Fewest and most trials that are asked at once."""

JOURNAL = "journal.log"
WORKER, RESULT = "worker", "result"

_TRIES, _TRIES_OF_SAMPLER = 100, 10
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(frozen=True)
class Question:
    """What a search asks: studies with the same question are one.

    Attributes
    ----------
    data : str
        Fingerprint of features, labels and splits.
    space : dict
        The recipe's ``sweep.space`` as JSON-ready data.
    metric, sampler : str
    seed, head_seed : int
        Of the sampler and of the heads.
    """

    data: str
    space: dict[str, Any]
    metric: str
    sampler: str
    seed: int
    head_seed: int

    @classmethod
    def of(cls, recipe: Recipe, data: str) -> Question:
        """Return the question of a recipe on data with that fingerprint."""
        sweep = recipe.sweep
        space = {name: kind.model_dump(mode="json") for name, kind in sweep.space.items()}
        seed = recipe.seed if sweep.seed is None else sweep.seed
        return cls(data, space, sweep.metric, sweep.sampler, seed, recipe.seed)

    @property
    def name(self) -> str:
        """A name that no other question has."""
        text = json.dumps(asdict(self), sort_keys=True)
        return f"heads-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """Optuna's word for which scores are better."""
        return "minimize" if self.metric == "log_loss" else "maximize"


def trials_in_total(space: SearchSpace, sampler: str, trials: int | None) -> int:
    """Return how many trials a search has: never more than there are different heads.

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
    """Return how many trials are asked at once.

    The more there are, the more Dense heads are trained together. TPE learns between batches only, and
    draws the first one at random: it gets at least four, where that leaves them large enough.
    """
    return min(LARGE_BATCH, max(SMALL_BATCH, total // 4)) if sampler == "tpe" else LARGE_BATCH


class Study:
    """An Optuna study in ``journal.log``; use it as a context manager: at its end the worker has left.

    Parameters
    ----------
    folder : Path
        Of the journal.
    question : Question
    space : SearchSpace
    total : int
        How many trials there shall be.

    Attributes
    ----------
    name : str
    others : bool
        Whether the journal held studies with other questions, and this one was not among them.

    Raises
    ------
    StoreError
        The journal cannot be written, or is damaged.
    """

    def __init__(self, folder: Path, question: Question, space: SearchSpace, total: int) -> None:
        self.name = question.name
        self._question, self._space, self._total = question, space, total
        self._locks = folder / "locks"
        self._make(self._locks)
        self._asking = FileLock(self._locks / "asking")
        self._worker = f"worker-{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}"
        self._alive = FileLock(self._locks / self._worker)
        self._grid: list[Params] | None = None
        with self._asking, _quiet(), _journal_errors(folder / JOURNAL):
            self._alive.acquire()
            self._storage = _open_journal(folder / JOURNAL, self._locks / "journal")
            known = optuna.get_all_study_names(self._storage)
            self.others = bool(known) and self.name not in known
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=self.name,
                direction=question.direction,
                sampler=optuna.samplers.RandomSampler(0),  # the journal's own; it never draws
                load_if_exists=True,
            )
            if self.name not in known:
                self._study.set_user_attr("question", asdict(question))
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
        """The trials that are over, failed ones too, by number."""
        return self._study.get_trials(deepcopy=False, states=_FINISHED)

    @property
    def is_complete(self) -> bool:
        """Whether all trials are over, those of other processes too."""
        trials = self._study.get_trials(deepcopy=False)
        return len(trials) >= self._total and all(trial.state.is_finished() for trial in trials)

    def ask(self) -> list[Asked]:
        """Return the next trials to carry out; none when all are over or other processes work on them.

        Trials that a dead process left come first. A batch always ends at a multiple of its size, so that
        a search which was interrupted forms the same batches as one that was not.
        """
        with self._asking, _quiet():
            dead = self._dead_workers()
            # read after that: what a dead worker's trials are now, they stay
            trials = self._study.get_trials(deepcopy=False)
            left = [trial for trial in trials if _is_running(trial) and trial.user_attrs[WORKER] in dead]
            for trial in left:
                self._storage.set_trial_user_attr(self._trial_id(trial.number), WORKER, self._worker)
            batch = [Asked(trial.number, self._space.settings(trial.params)) for trial in left]
            return batch + self._ask_new(trials, self._new_trials(len(trials), bool(left)))

    def _dead_workers(self) -> set[str]:
        """Return the dead among those whose trials were not finished."""
        running = filter(_is_running, self._study.get_trials(deepcopy=False))
        return {worker for worker in {t.user_attrs[WORKER] for t in running} if not self._lives(worker)}

    def _lives(self, worker: str) -> bool:
        path = self._locks / worker
        lock = FileLock(path)
        if not path.exists() or lock.acquire(wait=False):
            lock.release()
            path.unlink(missing_ok=True)
            return False
        return True

    def _new_trials(self, asked: int, some_left: bool) -> int:
        size = batch_size(self._question.sampler, self._total)
        if some_left and asked % size == 0:
            return 0
        return max(0, min(self._total, (asked // size + 1) * size) - asked)

    def _ask_new(self, trials: Sequence[FrozenTrial], count: int) -> list[Asked]:
        if not count:
            return []
        memory = optuna.create_study(direction=self._question.direction)
        memory.add_trials(trials)
        seen = {_key(trial.params) for trial in trials}
        batch = []
        for number in range(len(trials), len(trials) + count):
            drawn = self._draw(memory, number, seen)
            seen.add(_key(drawn.params))
            # one line of the journal, so that no trial is half asked
            self._study.add_trial(
                optuna.create_trial(
                    state=TrialState.RUNNING,
                    params=drawn.params,
                    distributions=drawn.distributions,
                    user_attrs={WORKER: self._worker},
                )
            )
            batch.append(Asked(number, self._space.settings(drawn.params)))
        return batch

    def _draw(self, memory: optuna.Study, number: int, seen: set[frozenset[Any]]) -> optuna.Trial:
        """Draw parameters that no other trial has."""
        if self._question.sampler == "grid":
            return self._draw_given(memory, self._shuffled_grid()[number])
        some_left = self._space.some_left(dict(key)[KIND] for key in seen)
        for attempt in range(_TRIES):
            memory.sampler = self._sampler(number, attempt)
            if attempt:
                # the sampler does not know that all heads of a kind were tried, and would draw it for ever
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
            # neighbours are much alike: in a search that is ended early all corners shall have been tried
            grid = list(self._space.grid())
            order = np.random.default_rng(self._question.seed).permutation(len(grid))
            self._grid = [grid[at] for at in order]
        return self._grid

    def _sampler(self, number: int, attempt: int) -> optuna.samplers.BaseSampler:
        seed = self._seed(number, attempt)
        # among few values TPE can get stuck at what was tried already
        if self._question.sampler == "random" or attempt >= _TRIES_OF_SAMPLER:
            return optuna.samplers.RandomSampler(seed)
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=SMALL_BATCH, constant_liar=True)

    def _seed(self, number: int, attempt: int) -> int:
        sequence = np.random.SeedSequence([self._question.seed, number, attempt])
        return int(sequence.generate_state(1)[0])

    def tell(self, number: int, outcome: Outcome) -> None:
        """Finish a trial that this process has asked."""
        trial_id = self._trial_id(number)
        self._storage.set_trial_user_attr(trial_id, RESULT, outcome.to_json())
        if outcome.value is None:
            self._study.tell(number, state=TrialState.FAIL)
        elif outcome.stopped:
            # Optuna takes the last value that was reported as the trial's
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


class _JournalLock(JournalFileOpenLock):
    """Optuna's own locks are files that a killed process leaves, and that others wait half a minute for."""

    def __init__(self, path: Path) -> None:
        self._own = FileLock(path)

    def acquire(self) -> bool:
        return self._own.acquire()

    def release(self) -> None:
        self._own.release()


def _open_journal(path: Path, lock_path: Path) -> JournalStorage:
    lock = _JournalLock(lock_path)
    with FileLock(lock_path):
        _cut_unfinished_line(path)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


def _cut_unfinished_line(path: Path) -> None:
    """Cut what a killed process has begun to write: the next line would be appended to it."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)


@contextmanager
def _journal_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(explain_os_error(error, path)) from None
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise StoreError(f"{path} is damaged ({error!r}); delete it, and the sweep begins anew") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from telling of every study that it makes."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
