"""Names of joblib and Optuna that are not part of their documented interfaces.

Tested with joblib 1.6.0 and Optuna 5.0.0. Where another version moves a name, this is the module to change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from joblib.externals.loky.process_executor import TerminatedWorkerError
from optuna.storages.journal._file import BaseJournalFileLock

__all__ = ["BaseJournalFileLock", "TerminatedWorkerError", "loky_options"]


def loky_options(idle_seconds: float, initializer: Callable[[int], None], argument: int) -> dict[str, Any]:
    """Return options that `joblib.Parallel` passes on to loky: when idle workers end, and how they start."""
    return {"idle_worker_timeout": idle_seconds, "initializer": initializer, "initargs": (argument,)}
