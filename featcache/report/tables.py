"""Results as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from featcache.evaluation.choosing import weakness
from featcache.prediction import NONE_OF_THESE
from featcache.report.predictions import most_probable
from featcache.report.streams import printable

if TYPE_CHECKING:
    from featcache.extraction.stage import Extraction, Profile
    from featcache.model import Prediction
    from featcache.run.results import TestLooks
    from featcache.training import HeadResult, Training


def heads_table(training: Training) -> Table:
    """Return one row per head with its scores, the best one marked; heads without scores come last.

    The metric that heads are compared by has a column of its own, where it is not among the others.
    """
    scores = training.heads[0].validation
    shown = [*_COLUMNS]
    if training.results.metric not in ("accuracy", *shown):
        shown.insert(1, training.results.metric)
    title = f"heads, {_scored_on(scores)}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("head")
    for name in ("accuracy", "95% interval", *map(short_name, shown), "fit"):
        table.add_column(name, justify="right")
    for head in training.heads:
        best = head.name == training.best
        table.add_row(*_head_row(head, shown), style="bold" if best else "")
    for failure in training.failed:
        table.add_row(failure.name, "failed", style="red")
    return table


_COLUMNS = ("balanced_accuracy", "log_loss", "roc_auc")

_SHORT = {
    "balanced_accuracy": "balanced",
    "macro_f1": "macro F1",
    "log_loss": "log loss",
    "roc_auc": "AUC",
    "average_precision": "avg. prec.",
}


def short_name(metric: str) -> str:
    """Return the heading of a metric's column."""
    return _SHORT.get(metric, metric)


def _scored_on(scores: dict[str, Any]) -> str:
    """Say on which photos heads were scored: "5-fold cross-validation of 385 photos"."""
    photos = f"{scores['n']:,} photos"
    if scores.get("groups") is not None:
        photos += f" in {scores['groups']:,} groups"
    if scores.get("weighted"):
        photos += ", weighted"
    folds = scores.get("folds")
    if folds is None:
        return f"on validation, {photos}"
    return f"{len(folds['accuracy'])}-fold cross-validation of {photos}"


def head_sentences(training: Training) -> list[str]:
    """Return a sentence for each head that failed, or that predicts one class only."""
    failed = [f"{one.name} failed: {one.reason}" for one in training.failed]
    shown = [(head.name, head.only_class) for head in training.heads]
    constant = [f"{name} predicts one class only: {label}" for name, label in shown if label is not None]
    return [*constant, *failed]


def _head_row(head: HeadResult, metrics: Sequence[str]) -> list[str]:
    scores = head.validation
    formatted = [percent if name == "balanced_accuracy" else number for name in metrics]
    return [
        head.name,
        percent(scores["accuracy"]),
        interval_of(scores, "accuracy"),
        *(show(scores.get(name)) for show, name in zip(formatted, metrics, strict=True)),
        f"{head.fit_seconds:.1f} s",
    ]


def details_tables(training: Training) -> tuple[Table, Table]:
    """Return the best head's tables by class: on test where there is one, else those of its row."""
    best = training[training.best]
    scores = best.test or best.validation
    names = [one["class"] for one in scores["per_class"]]
    return classes_table(scores), confusion_table(scores, names)


def best_sentence(training: Training) -> str:
    """Name the best head, what speaks against it, its accuracy on test if there is one, and its folder."""
    best = training[training.best]
    text = f"Best on validation: {best.name}{_folds_of(best.validation)}"
    weak = weakness(best.validation)
    if weak is not None:
        text += f", but {weak}"
    if best.test:
        low, high = percent(best.test["accuracy_low"]), percent(best.test["accuracy_high"])
        text += (
            f"; on test {percent(best.test['accuracy'])} ({low} – {high}, {best.test['n']:,} photos), "
            f"{looks_sentence(training.results.looks)}"
        )
    return f"{text}\nModel: {best.model}"


def _folds_of(scores: dict[str, Any]) -> str:
    folds = scores.get("folds")
    return f" ({len(folds['accuracy'])}-fold cross-validation)" if folds else ""


def looks_sentence(looks: TestLooks) -> str:
    """Say how often heads of the run were scored on test: "test was looked at once"."""
    times = {1: "once", 2: "twice"}.get(looks.count, f"{looks.count:,} times")
    return f"test was looked at {times}"


def confusion_table(scores: dict[str, Any], classes: Sequence[str]) -> Table:
    """Return the confusion matrix as a table; correct predictions are bold.

    Parameters
    ----------
    scores : dict
        As `featcache.evaluation.full_scores` gives them.
    classes : sequence of k names
        In the order of the scores' classes.

    Returns
    -------
    rich.table.Table
        A row per true class, a column per predicted class under the class's number. Of more than ten classes
        only the ten with the lowest F1, and a column for what was taken for any of the others.
    """
    shown = _shown_classes(scores)
    title = f"confusion{_selection(scores)}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, collapse_padding=True)
    table.add_column(_one_line("true ↓ predicted →"))
    for name in (*(str(i + 1) for i in shown), *(["others"] if len(classes) > len(shown) else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for i in shown:
        counts = scores["confusion"][i]
        cells = [Text(_count(counts[j]), style="bold" if i == j else "") for j in shown]
        others = Text(_count(sum(counts) - sum(counts[j] for j in shown)))
        table.add_row(_one_line(f"{i + 1} {classes[i]}"), *[*cells, others][: len(table.columns) - 1])
    return table


def classes_table(scores: dict[str, Any], classes: Sequence[str] | None = None) -> Table:
    """Return one row per class with its photos, precision, recall with its 95% interval, and F1.

    Parameters
    ----------
    scores : dict
        As `featcache.evaluation.full_scores` gives them.
    classes : sequence of k names, optional
        In the order of the scores' classes; default: the labels in the scores.

    Returns
    -------
    rich.table.Table
        Of more than ten classes only the ten with the lowest F1, the lowest first.
    """
    title = f"scores by class{_selection(scores)}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("class")
    for name in ("n", "precision", "recall", "95% interval", "F1"):
        table.add_column(name, justify="right", no_wrap=True)
    for i in _shown_classes(scores):
        one = scores["per_class"][i]
        name = str(one["class"] if classes is None else classes[i])
        shares = percent(one["precision"]), percent(one["recall"]), _recall_interval(one), number(one["f1"])
        table.add_row(_one_line(f"{i + 1} {name}"), f"{one['n']:,}", *shares)
    return table


def _recall_interval(one: dict[str, Any]) -> str:
    """Return the interval of a class's recall, of scores of earlier versions by Wilson's formula."""
    if one["recall"] is None:
        return "–"
    if "recall_low" in one:
        return interval_of(one, "recall")
    from featcache.evaluation.wilson import wilson_interval  # predict needs neither SciPy nor scikit-learn

    low, high = wilson_interval(round(one["recall"] * one["n"]), one["n"])
    return f"{percent(low)} – {percent(high)}"


def interval_of(scores: Mapping[str, Any], name: str) -> str:
    """Format the 95% interval of a score that is a fraction."""
    low, high = scores[f"{name}_low"], scores[f"{name}_high"]
    return "–" if low is None else f"{percent(low)} – {percent(high)}"


_MOST_CLASSES = 10
"""A table of 80 columns has no room for more."""


def _shown_classes(scores: dict[str, Any]) -> list[int]:
    """Return the positions of all classes, or of the worst when there are too many."""
    f1 = [1.0 if one["f1"] is None else one["f1"] for one in scores["per_class"]]
    if len(f1) <= _MOST_CLASSES:
        return list(range(len(f1)))
    return sorted(range(len(f1)), key=f1.__getitem__)[:_MOST_CLASSES]


def _selection(scores: dict[str, Any]) -> str:
    """Say in a title that only some classes are shown."""
    k = len(scores["per_class"])
    return f", worst {_MOST_CLASSES} of {k} by F1" if k > _MOST_CLASSES else ""


def _one_line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def _count(n: int) -> str:
    return str(n) if n else "·"


def extraction_sentence(extraction: Extraction) -> str:
    """Summarise stage 1."""
    speed = f" at {extraction.images_per_second:,.1f} images/s" if extraction.computed else ""
    skipped = f", {len(extraction.skipped):,} skipped" if extraction.skipped else ""
    views = f" of {extraction.photos:,} photos" if extraction.rows > extraction.photos else ""
    return (
        f"{extraction.rows:,} rows{views}: {extraction.computed:,} computed{speed}, "
        f"{extraction.reused:,} reused{skipped}, {extraction.seconds:.1f} s\n"
        f"Features: {extraction.features_file}"
    )


def profile_table(profile: Profile) -> Table:
    """Return the profile of extraction: seconds summed over all workers, and their share."""
    table = Table(title="where the time went", title_justify="left", box=None, pad_edge=False)
    table.add_column("step")
    for name in ("seconds", "share"):
        table.add_column(name, justify="right")
    whole = max(profile.computing * profile.workers, 1e-9)
    for step in ("reading", "decoding", "inference", "waiting"):
        seconds = getattr(profile, step)
        table.add_row(f"{step} ({profile.workers} workers)", f"{seconds:.2f}", percent(seconds / whole))
    table.add_row("writing (beside them)", f"{profile.writing:.2f}", "")
    table.add_row("computing, wall", f"{profile.computing:.2f}", "")
    table.add_row("loading the network before", f"{profile.preparing:.2f}", "")
    return table


def skipped_table(skipped: Sequence[tuple[str, str]], most: int = 20) -> Table:
    """Return the photos that were skipped, with reasons; the feature file lists them all."""
    table = Table(title="skipped photos", title_justify="left", box=None, pad_edge=False)
    table.add_column("photo", overflow="fold")
    table.add_column("reason", overflow="fold")
    for path, reason in skipped[:most]:
        table.add_row(Text(printable(path)), Text(reason))
    if len(skipped) > most:
        table.add_row(f"and {len(skipped) - most:,} more", "")
    return table


def predictions_table(
    predictions: Sequence[Prediction], top: int | None = None, more: Sequence[str] = ()
) -> Table:
    """Return one row per photo: class and probability, or why there is none; with `top`, further classes.

    `more` may have "novelty" and "set"; "rejected" is seen in place of the class.
    """
    table = Table(box=None, pad_edge=False)
    table.add_column("photo", overflow="fold")
    table.add_column("class")
    table.add_column("probability", justify="right")
    if "novelty" in more:
        table.add_column("novelty", justify="right")
    if "set" in more:
        table.add_column("set", overflow="fold")
    if top is not None:
        table.add_column(f"the {top:,} most probable" if top > 1 else "the most probable", overflow="fold")
    for one in predictions:
        # escaped before the width of its column is measured
        table.add_row(Text(printable(one.path)), *_prediction_cells(one, top, more))
    return table


def _prediction_cells(one: Prediction, top: int | None, more: Sequence[str]) -> list[str | Text]:
    label = Text(one.reason, style="red") if one.reason is not None else Text(one.label or NONE_OF_THESE)
    cells: list[str | Text] = [label, _three_digits(one.probability)]
    if "novelty" in more:
        cells.append(_three_digits(one.novelty))
    if "set" in more:
        cells.append(Text("" if one.set is None else ", ".join(one.set) or "–"))
    if top is not None:
        shown = (f"{name} {share:.3f}" for name, share in most_probable(one, top))
        cells.append(Text(", ".join(shown)))
    return cells


def _three_digits(number: float | None) -> str:
    return "" if number is None else f"{number:.3f}"


def facts_table(facts: dict[str, Any]) -> Table:
    """Return names and values in two columns."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in _flat(facts):
        table.add_row(name, Text(value))
    return table


def _flat(facts: dict[str, Any], indent: str = "") -> Iterator[tuple[str, str]]:
    for name, value in facts.items():
        if isinstance(value, dict) and value:
            yield indent + name, ""
            yield from _flat(value, indent + "  ")
        elif isinstance(value, list):
            yield indent + name, ", ".join(map(str, value))
        else:
            yield indent + name, "–" if value in (None, {}) else str(value)


def percent(share: float | None) -> str:
    """Format a fraction as percent."""
    return "–" if share is None else f"{100 * share:.1f}%"


def number(value: float | None) -> str:
    """Format a score."""
    return "–" if value is None else f"{value:.3f}"
