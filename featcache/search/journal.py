"""The journal of a search: reading and writing it safely, and detecting damaged trials."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from featcache.errors import RecipeError, StoreError
from featcache.files import explain_os_error
from featcache.search.locks import held, take
from featcache.search.private import BaseJournalFileLock
from featcache.search.space import SearchSpace
from featcache.search.trial import Outcome

WORKER, RESULT, CHECKSUM = "worker", "result", "checksum"
"""User attributes of a trial."""

# what reading a journal raises where it has something else than what was written
_DAMAGE = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    RuntimeError,
    RecipeError,
)


def outcome_of(trial: FrozenTrial) -> Outcome:
    """Return the result of a finished trial."""
    facts = dict(trial.user_attrs[RESULT])
    facts.pop(CHECKSUM, None)
    return Outcome(**facts)


def checksum(number: int, params: Mapping[str, Any], result: Mapping[str, Any] | None = None) -> str:
    """Return a hash of a trial's content, which tells a damaged line from a good one."""
    text = json.dumps([number, params, result], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_trial(trial: FrozenTrial, space: SearchSpace) -> None:
    """Raise an error where a trial is not as it was written; trials of version 0.1 have no checksums."""
    space.settings(trial.params)
    started = trial.user_attrs.get(CHECKSUM)
    if started not in (None, checksum(trial.number, trial.params)):
        raise ValueError(f"the parameters of trial {trial.number} changed")
    if not trial.state.is_finished():
        if not isinstance(trial.user_attrs[WORKER], str):
            raise ValueError(f"trial {trial.number} has no worker")
        return
    outcome_of(trial).check()
    facts = dict(trial.user_attrs[RESULT])
    finished = facts.pop(CHECKSUM, None)
    if finished not in (None, checksum(trial.number, trial.params, facts)):
        raise ValueError(f"the result of trial {trial.number} changed")


class _JournalLock(BaseJournalFileLock):
    """Optuna's own locks are files that a killed process leaves behind; others then wait half a minute."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: FileLock | None = None

    def acquire(self) -> bool:
        self._lock = take(self._path)
        return True

    def release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def open_journal(path: Path, lock_path: Path) -> JournalStorage:
    """Open a journal that several processes share; an incomplete last line is removed before.

    Raises
    ------
    OSError
        It cannot be read, or is not a regular file.
    """
    with held(lock_path):
        _cut_unfinished_line(path)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=_JournalLock(lock_path)))


def _cut_unfinished_line(path: Path) -> None:
    """Remove an incomplete last line of a killed process: the next line would be appended to it."""
    if not path.exists():
        return
    if not path.is_file():
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    with path.open("rb+") as file:
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)


@contextmanager
def journal_errors(path: Path) -> Iterator[None]:
    """Turn what reading a journal raises into a StoreError that names the file."""
    try:
        yield
    except OSError as error:
        raise StoreError(explain_os_error(error, path)) from None
    except StoreError:
        raise
    except (*_DAMAGE, optuna.exceptions.OptunaError) as error:
        raise StoreError(f"{path} is damaged ({error!r}); delete it to start the sweep again") from None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna from logging every study that it creates."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
