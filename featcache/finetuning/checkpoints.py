"""Checkpoints of a fine-tuning: one file per epoch, used only if it is the one that was written."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import StoreError
from featcache.files import read_regular, write_bytes_whole

Measures = dict[str, float]

# The file ends with the SHA-256 of what comes before.
_HASH_BYTES = 32
# Room beside weights and optimizer for the history, names and padding.
_MARGIN_BYTES = 16 << 20
# What NumPy and json raise for content that is not a checkpoint.
_DAMAGE = (ValueError, KeyError, TypeError, EOFError, OSError, zipfile.BadZipFile)


@dataclass
class History:
    """The measures of a fine-tuning, before it and after each epoch.

    Attributes
    ----------
    before : dict
        ``loss``, ``accuracy`` and the metric on validation before anything was trained.
    per_epoch : dict of str to list of float
    metric : str
        What the best epoch is chosen by: "log_loss", which is ``val_loss``, or the name of a score.
    """

    before: Measures
    per_epoch: dict[str, list[float]] = field(default_factory=dict)
    metric: str = "log_loss"

    @property
    def epochs(self) -> int:
        """Number of completed epochs."""
        return len(self.per_epoch.get("loss", []))

    @property
    def best_epoch(self) -> int:
        """The epoch, from 1, with the best metric on validation; among equals with the lowest loss."""
        fitness = [-loss for loss in self.per_epoch["val_loss"]]
        first = fitness if self.metric == "log_loss" else self.per_epoch[f"val_{self.metric}"]
        return 1 + max(enumerate(zip(first, fitness, strict=True)), key=lambda pair: pair[1])[0]

    def append(self, measures: Measures) -> None:
        """Append the measures of an epoch."""
        for name, value in measures.items():
            self.per_epoch.setdefault(name, []).append(value)


class Checkpoints:
    """One file per epoch: weights, the optimizer's state and the history so far.

    Parameters
    ----------
    folder : Path
        Of this very fine-tuning: another data set, head or other settings must have another one.
    variables : mapping of str to keras.Variable
        All that training changes, by the name of its array: weights and the optimizer's state.
    note : callable, optional
        Called with one sentence for each checkpoint that cannot be used.
    metric : str
        See `History`.
    """

    def __init__(
        self,
        folder: Path,
        variables: Mapping[str, Any],
        note: Callable[[str], None] = lambda _: None,
        metric: str = "log_loss",
    ) -> None:
        self._folder, self._variables, self._note, self._metric = folder, variables, note, metric

    def _path(self, epoch: int) -> Path:
        return self._folder / f"epoch-{epoch:04}.npz"

    def save(self, history: History) -> None:
        """Write the state after an epoch. Earlier ones stay: the best of them is loaded in the end.

        Raises
        ------
        StoreError
            No room or no permission.
        """
        arrays = {name: np.asarray(variable) for name, variable in self._variables.items()}
        state = json.dumps({"before": history.before, "history": history.per_epoch})
        data = io.BytesIO()
        np.savez(data, state=np.frombuffer(state.encode(), np.uint8), **arrays)  # type: ignore[arg-type]
        content = data.getvalue()
        write_bytes_whole(self._path(history.epochs), content + hashlib.sha256(content).digest())

    def resume(self) -> History | None:
        """Load the last epoch whose checkpoint is whole, as is that of the best epoch until then."""
        for path in sorted(self._folder.glob("epoch-*.npz"), reverse=True):
            number = path.stem.removeprefix("epoch-")
            state = self._read(int(number)) if number.isdecimal() else None
            if state is not None and self._read(state[1].best_epoch) is not None:
                return self._assign(state)
        return None

    def load(self, epoch: int) -> History:
        """Give the variables the state after an epoch.

        Raises
        ------
        StoreError
            Its checkpoint was removed or damaged since it was written.
        """
        state = self._read(epoch)
        if state is None:
            raise StoreError(f"the checkpoint {self._path(epoch)} is missing or damaged; fine-tune again")
        return self._assign(state)

    def _assign(self, state: tuple[list[NDArray[Any]], History]) -> History:
        values, history = state
        for variable, value in zip(self._variables.values(), values, strict=True):
            variable.assign(value)
        return history

    def _read(self, epoch: int) -> tuple[list[NDArray[Any]], History] | None:
        """Return values and history of an epoch, or None where the file is not what was written."""
        path = self._path(epoch)
        try:
            return self._checked(read_regular(path, self._most_bytes), epoch)
        except FileNotFoundError:
            return None
        except _DAMAGE as error:
            self._note(f"the checkpoint {path} is not used: {error}")
            return None

    @property
    def _most_bytes(self) -> int:
        return sum(np.asarray(variable).nbytes for variable in self._variables.values()) + _MARGIN_BYTES

    def _checked(self, data: bytes, epoch: int) -> tuple[list[NDArray[Any]], History]:
        content, digest = data[:-_HASH_BYTES], data[-_HASH_BYTES:]
        if hashlib.sha256(content).digest() != digest:
            raise ValueError("its checksum is wrong")
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            values = [file[name] for name in self._variables]
            state = json.loads(file["state"].tobytes())
        history = History(state["before"], state["history"], self._metric)
        shapes = [tuple(variable.shape) for variable in self._variables.values()]
        if history.epochs != epoch or [value.shape for value in values] != shapes:
            raise ValueError("it is of another fine-tuning")
        return values, history
