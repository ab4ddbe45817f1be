"""``heads.json``: the trained heads of a run, their scores, and which of them is the best.

It is read, changed and written under one lock, together with ``predictions.npz``. What another program wrote
into it is validated entry by entry: bad entries are dropped, and this is said.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from featcache.errors import FormatError, StoreError
from featcache.evaluation.choosing import only_class_of, rank
from featcache.files import file_sha256, locked, read_regular, write_bytes_whole
from featcache.run.entries import (
    EARLIER_METRIC,
    Entry,
    FailureEntry,
    HeadEntry,
    SelectionEntry,
    validated,
)
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
            "only_class": self.only_class,
            "test": self.test,
            "model": str(self.model),
            "trained_from": self.trained_from,
            "model_sha256": self.model_sha256,
        }

    @property
    def only_class(self) -> str | None:
        """The class that the head predicts for every validation photo, although there are others; or None."""
        return only_class_of(self.validation)

    @property
    def is_saved(self) -> bool:
        """Whether the model on disk is the one that was scored."""
        try:
            return bool(self.model_sha256) and file_sha256(self.model / MODEL_FILE) == self.model_sha256
        except OSError:
            return False


@dataclass(frozen=True)
class HeadFailure:
    """A head without a result.

    Attributes
    ----------
    name : str
    reason : str
        One line.
    """

    name: str
    reason: str

    def to_json(self) -> dict[str, str]:
        """Return the failure as JSON-ready data."""
        return asdict(self)


@dataclass(frozen=True)
class TestLooks:
    """How often heads of a run were scored on the same test photos.

    The more often, the less the scores of the best say about other photos.

    Attributes
    ----------
    count : int
    photos : str
        Hash of the test photos; empty where there are none.
    """

    __test__ = False  # no test case of pytest's

    count: int = 0
    photos: str = ""

    def __add__(self, others: TestLooks) -> TestLooks:
        """Add looks; those at other photos no longer count."""
        if not others.photos or not others.count:
            return self
        return replace(others, count=others.count + (self.count if self.photos == others.photos else 0))

    def to_json(self) -> dict[str, Any]:
        """Return the looks as JSON-ready data."""
        return asdict(self)


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
    failed : tuple of HeadFailure
        Heads whose last training on this data failed.
    metric : str
        What the best head is chosen by.
    looks : TestLooks
        How often heads of the run were scored on test.
    """

    data: str
    heads: tuple[HeadResult, ...]
    features: Mapping[str, Any] = field(default_factory=dict)
    failed: tuple[HeadFailure, ...] = ()
    metric: str = EARLIER_METRIC
    looks: TestLooks = TestLooks()

    @property
    def best(self) -> HeadResult:
        """The best head of the run, see `best_head`."""
        return best_head(self.heads, self.metric)

    def __getitem__(self, name: str) -> HeadResult:
        return next(head for head in self.heads if head.name == name)

    def to_json(self, run: Path) -> dict[str, Any]:
        """Return what ``heads.json`` says."""
        return {
            "run": str(run),
            "features": dict(self.features),
            "heads": [head.to_json() for head in self.heads],
            "failed": [failure.to_json() for failure in self.failed],
            "best": self.best.name,
            "metric": self.metric,
            "test_looks": self.looks.to_json(),
            "data": self.data,
        }


def best_head(heads: Iterable[HeadResult], metric: str) -> HeadResult:
    """Return the best head by its validation scores, see `featcache.evaluation.choosing.rank`.

    Every command goes by this. The first of equal heads wins.
    """
    return max(heads, key=lambda head: rank(head.validation, metric))


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
        failed = facts.get("failed", [])  # earlier versions write none
        if not (isinstance(data, str) and isinstance(entries, list) and isinstance(failed, list)):
            raise ValueError("data is no text, or heads or failed is no list")
        choice = SelectionEntry.model_validate(facts)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        note(f"{path} is damaged ({type(error).__name__}: {_first_line(error)}); its heads are left out")
        return None
    heads = tuple(head for entry in entries if (head := _head_of(entry, run, note)) is not None)
    if not heads:
        return None
    failures = tuple(one for entry in failed if (one := _failure_of(entry, run, note)) is not None)
    looks = TestLooks(choice.test_looks.count, choice.test_looks.photos)
    return RunResults(
        data, heads, features if isinstance(features, dict) else {}, failures, choice.metric, looks
    )


def _failure_of(entry: Any, run: Path, note: Note) -> HeadFailure | None:
    failure = _valid(FailureEntry, entry, run, note)
    return None if failure is None else HeadFailure(failure.name, _first_line(failure.reason))


def _head_of(entry: Any, run: Path, note: Note) -> HeadResult | None:
    head = _valid(HeadEntry, entry, run, note)
    if head is None:
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


def _valid(kind: type[Entry], entry: Any, run: Path, note: Note) -> Entry | None:
    try:
        return validated(kind, entry)
    except ValueError as error:
        note(f"{run / HEADS_FILE}: an invalid head is left out, {error}")
        return None


def _first_line(text: object) -> str:
    return (str(text).splitlines() or [""])[0][:200]


# ---- writing ---------------------------------------------------------------------------------------------


def update_results(
    run: Path,
    heads: Sequence[HeadResult],
    predictions: RunPredictions,
    features: Mapping[str, Any] | None = None,
    note: Note = lambda _: None,
    failed: Sequence[HeadFailure] = (),
    metric: str | None = None,
    looks: TestLooks = TestLooks(),
) -> RunResults:
    """Enter trained heads and their predictions into the run.

    Earlier heads stay if they were trained on the same data; one of the same name is replaced. `note` says
    how many were trained on other data and are no longer listed.

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
    failed : sequence of HeadFailure, optional
        Heads that could not be trained. An earlier model of that name stays.
    metric : str, optional
        What the best head is chosen by; without it what the file says stays.
    looks : TestLooks, optional
        How many heads were scored on which test photos now; they are added to earlier ones.

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
        before = earlier or RunResults(predictions.data, ())
        new = RunResults(
            predictions.data,
            tuple(saved),
            before.features if features is None else features,
            tuple(failed),
            metric or before.metric,
            before.looks + looks,
        )
        results = _with_earlier(new, earlier, note)
        _keep_predictions(run, _merged(_readable_predictions(run, note), predictions, results), note)
        write_bytes_whole(path, (json.dumps(results.to_json(run), indent=1) + "\n").encode())
    return results


def _with_earlier(new: RunResults, earlier: RunResults | None, note: Note) -> RunResults:
    """Add what an earlier training on the same data gave under other names."""
    replaced = {head.name.lower() for head in new.heads}
    named = replaced | {failure.name.lower() for failure in new.failed}
    if earlier is None:
        return new
    others = [head for head in earlier.heads if head.name.lower() not in replaced]
    if earlier.data != new.data:
        if others:
            note(
                "the photos, their labels, splits or folds have changed since these heads of the run were "
                f"trained; {HEADS_FILE} no longer lists them: {', '.join(head.name for head in others)}"
            )
        return new
    failed = [one for one in earlier.failed if one.name.lower() not in named]
    return replace(new, heads=(*others, *new.heads), failed=(*failed, *new.failed))


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
