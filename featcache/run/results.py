"""``heads.json``: the trained heads of a run, their scores, and which of them is the best.

It is read, changed and written under one lock, together with ``predictions.npz``. What another program wrote
into it is validated entry by entry: bad entries are dropped, and this is said.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from featcache.errors import FormatError, StoreError
from featcache.files import file_sha256, locked, read_regular, write_bytes_whole
from featcache.recipe.names import check_folder_name
from featcache.run.layout import HEADS_FILE, MODEL_FILE, PREDICTIONS_FILE, model_folder
from featcache.run.predictions import (
    MAX_BYTES,
    HeadPredictions,
    RunPredictions,
    load_predictions,
    write_predictions,
)

Note = Callable[[str], None]

_MAX_HEADS_BYTES = 64 << 20


@dataclass(frozen=True)
class HeadResult:
    """A trained head and its scores.

    Attributes
    ----------
    name : str
    fit_seconds : float
    validation : dict
        Scores as `featcache.evaluation.full_scores` gives them; with ``data.folds`` cross-validated.
    test : dict or None
        Only of the best of the heads that were trained together.
    model : Path
        Folder of the saved model.
    trained_from : str
        Hash of the head's settings and seed.
    model_sha256 : str
        Hash of the model's ``model.json``.
    """

    name: str
    fit_seconds: float
    validation: dict[str, Any]
    test: dict[str, Any] | None
    model: Path
    trained_from: str = ""
    model_sha256: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON-ready data."""
        return {
            "name": self.name,
            "fit_seconds": round(self.fit_seconds, 3),
            "validation": self.validation,
            "test": self.test,
            "model": str(self.model),
            "trained_from": self.trained_from,
            "model_sha256": self.model_sha256,
        }

    @property
    def is_saved(self) -> bool:
        """Whether the model on disk is the one that was scored."""
        try:
            return bool(self.model_sha256) and file_sha256(self.model / MODEL_FILE) == self.model_sha256
        except OSError:
            return False


@dataclass(frozen=True)
class RunResults:
    """The heads of a run that were trained on the same data.

    Attributes
    ----------
    data : str
        Fingerprint of the data.
    heads : tuple of HeadResult
        In the order in which they were first trained.
    features : dict
        What extraction did, as JSON-ready data.
    """

    data: str
    heads: tuple[HeadResult, ...]
    features: Mapping[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> HeadResult:
        """The best head of the run, see `best_head`."""
        return best_head(self.heads)

    def __getitem__(self, name: str) -> HeadResult:
        return next(head for head in self.heads if head.name == name)

    def to_json(self, run: Path) -> dict[str, Any]:
        """Return what ``heads.json`` says."""
        return {
            "run": str(run),
            "features": dict(self.features),
            "heads": [head.to_json() for head in self.heads],
            "best": self.best.name,
            "data": self.data,
        }


def best_head(heads: Iterable[HeadResult]) -> HeadResult:
    """Return the best head: the highest validation accuracy; among equals, the lowest log loss.

    Every command goes by this. A head without log loss comes after those with one, and the first of
    equal heads wins.
    """
    return max(heads, key=lambda head: _rank(head.validation))


def _rank(scores: Mapping[str, Any]) -> tuple[float, float]:
    loss = scores["log_loss"]
    return scores["accuracy"], -math.inf if loss is None else -loss


# ---- reading ---------------------------------------------------------------------------------------------


def read_results(run: Path, note: Note = lambda _: None) -> RunResults | None:
    """Return what ``heads.json`` says; None where there is no such file, or no valid head in it.

    Parameters
    ----------
    run : Path
    note : callable, optional
        Called with one sentence for each entry that is dropped.

    Raises
    ------
    StoreError
        The file is there, but cannot be read.
    """
    path = run / HEADS_FILE
    try:
        facts = json.loads(read_regular(path, _MAX_HEADS_BYTES))
        data, entries, features = facts["data"], facts["heads"], facts.get("features")
        if not isinstance(data, str) or not isinstance(entries, list):
            raise ValueError("data is no text, or heads is no list")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        note(f"{path} is damaged ({type(error).__name__}: {_first_line(error)}); its heads are left out")
        return None
    heads = [head for entry in entries if (head := _head_of(entry, run, note)) is not None]
    return RunResults(data, tuple(heads), features if isinstance(features, dict) else {}) if heads else None


def _head_of(entry: Any, run: Path, note: Note) -> HeadResult | None:
    try:
        head = _Entry.model_validate(entry)
    except ValidationError as error:
        one = error.errors()[0]
        key = ".".join(map(str, one["loc"]))
        name = entry.get("name") if isinstance(entry, dict) else entry
        reason = f"{key}: {one['msg']}" if key else one["msg"]
        note(f"{run / HEADS_FILE}: an invalid head is left out, {str(name)[:100]!r} ({_first_line(reason)})")
        return None
    # the folder follows from the name: a path in the file decides nothing
    return HeadResult(
        head.name,
        head.fit_seconds,
        entry["validation"],
        entry.get("test"),
        model_folder(run, head.name),
        head.trained_from,
        head.model_sha256,
    )


def _first_line(text: object) -> str:
    return (str(text).splitlines() or [""])[0][:200]


_Share = Annotated[float, Field(ge=0, le=1, strict=True)]
_Count = Annotated[int, Field(ge=0, strict=True)]


class _ClassScores(BaseModel):
    name: str = Field(alias="class")
    precision: _Share | None
    recall: _Share | None
    f1: _Share | None
    n: _Count


class _Scores(BaseModel):
    """The scores that commands show and compare; others may stand beside them."""

    model_config = ConfigDict(extra="allow")

    n: _Count
    accuracy: _Share
    accuracy_low: _Share
    accuracy_high: _Share
    balanced_accuracy: _Share
    macro_f1: _Share
    roc_auc: _Share | None
    log_loss: Annotated[float, Field(ge=0, strict=True, allow_inf_nan=False)] | None
    confusion: list[list[_Count]]
    per_class: list[_ClassScores]

    @model_validator(mode="after")
    def _confusion_is_square(self) -> _Scores:
        k = len(self.per_class)
        if [len(row) for row in self.confusion] != [k] * k:
            raise ValueError(f"confusion must have {k} rows of {k} numbers")
        return self


class _Entry(BaseModel):
    name: str
    fit_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    validation: _Scores
    test: _Scores | None = None
    trained_from: str = ""
    model_sha256: str = ""

    @field_validator("name")
    @classmethod
    def _can_be_a_folder(cls, name: str) -> str:
        check_folder_name(name)
        return name


# ---- writing ---------------------------------------------------------------------------------------------


def update_results(
    run: Path,
    heads: Sequence[HeadResult],
    predictions: RunPredictions,
    features: Mapping[str, Any] | None = None,
    note: Note = lambda _: None,
) -> RunResults:
    """Enter trained heads and their predictions into the run.

    Earlier heads stay where they were trained on the same data; one of the same name is replaced.

    Parameters
    ----------
    run : Path
    heads : sequence of HeadResult
        Their models are saved.
    predictions : RunPredictions
        Of `heads`, with the fingerprint of the data they were trained on.
    features : mapping, optional
        What extraction did; without it what the file says of it stays.
    note : callable, optional
        Called with one sentence for everything that is left out.

    Returns
    -------
    RunResults
        All heads of the run.

    Raises
    ------
    StoreError
        No room, no permission, or another process holds the lock all the time.
    """
    path = run / HEADS_FILE
    saved = [replace(head, model_sha256=file_sha256(head.model / MODEL_FILE)) for head in heads]
    with locked(path):
        earlier = read_results(run, note)
        new = {head.name.lower() for head in saved}
        same_data = earlier is not None and earlier.data == predictions.data
        kept = (
            [head for head in earlier.heads if head.name.lower() not in new] if earlier and same_data else []
        )
        if features is None:
            features = earlier.features if earlier else {}
        results = RunResults(predictions.data, (*kept, *saved), features)
        _keep_predictions(run, _merged(_readable_predictions(run, note), predictions, results), note)
        write_bytes_whole(path, (json.dumps(results.to_json(run), indent=1) + "\n").encode())
    return results


def read_predictions(run: Path) -> RunPredictions | None:
    """Return the predictions of the heads that ``heads.json`` lists; None where there are none.

    Raises
    ------
    StoreError
        One of the two files is there, but cannot be read.
    """
    results, kept = read_results(run), _readable_predictions(run, lambda _: None)
    if results is None or kept is None or kept.data != results.data:
        return None
    return _of_listed_heads(kept, results)


def _readable_predictions(run: Path, note: Note) -> RunPredictions | None:
    """Return what is kept; a missing or damaged file is none, since training writes it again."""
    try:
        return load_predictions(run / PREDICTIONS_FILE)
    except FileNotFoundError:
        return None
    except FormatError as error:
        note(str(error))
        return None
    except OSError as error:
        raise StoreError(f"{run / PREDICTIONS_FILE} cannot be read: {error.strerror or error}") from None


def _merged(earlier: RunPredictions | None, new: RunPredictions, results: RunResults) -> RunPredictions:
    """Return the predictions of all heads of the run, as far as they are of the same rows."""
    of_new = {head.name: head.model_sha256 for head in results.heads}
    heads: dict[str, HeadPredictions] = {}
    if earlier is not None and earlier.data == new.data and earlier.rows.equals(new.rows):
        heads |= earlier.heads
    heads |= {name: replace(one, model_sha256=of_new[name]) for name, one in new.heads.items()}
    return _of_listed_heads(replace(new, heads=heads), results)


def _of_listed_heads(predictions: RunPredictions, results: RunResults) -> RunPredictions:
    listed = {head.name: head.model_sha256 for head in results.heads}
    heads = {name: one for name, one in predictions.heads.items() if listed.get(name) == one.model_sha256}
    return replace(predictions, heads=heads)


def _keep_predictions(run: Path, predictions: RunPredictions, note: Note) -> None:
    if predictions.nbytes < MAX_BYTES - (1 << 20):
        write_predictions(run / PREDICTIONS_FILE, predictions)
        return
    (run / PREDICTIONS_FILE).unlink(missing_ok=True)
    note(
        f"{PREDICTIONS_FILE} is not written: predictions of {len(predictions.heads):,} heads would take "
        f"{predictions.nbytes:,} bytes, and at most {MAX_BYTES:,} are kept"
    )
