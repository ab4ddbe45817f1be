"""The evaluation of a model for a terminal, and as files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from featcache.errors import DataError
from featcache.files import write_bytes_whole
from featcache.model import Prediction
from featcache.report.tables import number, percent

if TYPE_CHECKING:
    from featcache.evaluating.stage import Evaluation

EVALUATION_FILE = "evaluation.json"
MISTAKES_FILE = "mistakes.csv"
MISTAKES_PICTURE = "mistakes.png"
RELIABILITY_PICTURE = "reliability.png"

_MOST_MISTAKES = 10
_MOST_TILES = 25
_SHARES = {"accuracy", "balanced_accuracy"}
_NAMES = {
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "log_loss": "log loss",
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "ece": "calibration error (ECE)",
}


def scores_table(scores: Mapping[str, Any]) -> Table:
    """Return a row per score with its 95% interval and the number of photos.

    Parameters
    ----------
    scores : mapping
        As `featcache.evaluation.full_scores` gives them. Every score that has an interval is shown.
    """
    table = Table(box=None, pad_edge=False)
    table.add_column("score")
    for name in ("value", "95% interval", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in (key for key in scores if f"{key}_low" in scores):
        shown = percent if name in _SHARES else number
        low, high = scores[f"{name}_low"], scores[f"{name}_high"]
        interval = "–" if low is None else f"{shown(low)} – {shown(high)}"
        table.add_row(_NAMES.get(name, name), shown(scores[name]), interval, f"{scores['n']:,}")
    return table


def reliability_table(evaluation: Evaluation) -> Table:
    """Return a row per bin of probability: how many photos, and how many of them are right."""
    table = Table(title="reliability", title_justify="left", box=None, pad_edge=False)
    for name in ("probability", "mean", "right", "95% interval", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in evaluation.reliability:
        table.add_row(
            f"{percent(one['low'])} – {percent(one['high'])}",
            percent(one["confidence"]),
            percent(one["accuracy"]),
            f"{percent(one['accuracy_low'])} – {percent(one['accuracy_high'])}",
            f"{one['n']:,}",
        )
    return table


def mistakes_table(evaluation: Evaluation) -> Table:
    """Return the most confident mistakes."""
    mistakes = evaluation.mistakes
    shown = mistakes[:_MOST_MISTAKES]
    part = f", the {len(shown)} most confident" if len(shown) < len(mistakes) else ""
    title = f"mistakes: {len(mistakes):,} of {evaluation.scores['n']:,} photos{part}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("photo", overflow="fold")
    for name in ("label", "predicted"):
        table.add_column(name)
    table.add_column("probability", justify="right")
    for one in shown:
        table.add_row(Text(one.path), Text(one.label), Text(one.predicted), number(one.probability))
    return table


def sentences(evaluation: Evaluation) -> Iterator[str]:
    """Say which photos are not scored and why, and what the scores cannot tell."""
    if evaluation.trained_on is None:
        yield (
            "The model does not know which photos it was trained on (an earlier version wrote it): if some "
            "of them are among these, the scores are too good."
        )
    elif evaluation.trained_on:
        yield f"{evaluation.trained_on:,} photos are left out: the model was trained on them."
    if evaluation.chosen_on:
        yield (
            f"{evaluation.chosen_on:,} of the scored photos helped to choose the model (validation): the "
            "scores are slightly too good."
        )
    if evaluation.copies:
        yield f"{evaluation.copies:,} photos are left out: they are copies of others, and count once."
    if evaluation.two_labels:
        yield (
            f"{len(evaluation.two_labels):,} photos are left out: equal photos have two labels, for example "
            f"{evaluation.two_labels[0]}."
        )
    if evaluation.unknown:
        photos, names = sum(evaluation.unknown.values()), ", ".join(sorted(evaluation.unknown)[:5])
        yield f"{photos:,} photos are left out: the model does not know their labels, for example {names}."
    without = [one["class"] for one in evaluation.scores["per_class"] if not one["n"]]
    if without:
        yield f"{len(without):,} classes have no photo and are not scored, for example {without[0]}."


def write_evaluation(evaluation: Evaluation, folder: Path, grid: bool) -> list[Path]:
    """Write the evaluation as JSON, its mistakes as CSV, and pictures of its reliability and its mistakes.

    Returns
    -------
    list of Path
        The files. A head without probabilities has no reliability, and without mistakes there is no grid.

    Raises
    ------
    StoreError
        No room or no permission.
    DataError
        A photo to draw is not there any more.
    """
    from featcache.report.plots import write_figure
    from featcache.report.reliability import reliability_diagram

    written = [folder / EVALUATION_FILE, folder / MISTAKES_FILE]
    text = json.dumps(evaluation.to_json(), indent=1)
    write_bytes_whole(written[0], (text + "\n").encode())
    write_bytes_whole(written[1], _mistakes_csv(evaluation).encode("utf-8", "surrogateescape"))
    if evaluation.reliability:
        figure = reliability_diagram(evaluation.reliability, title=_title(evaluation))
        written.append(write_figure(figure, folder / RELIABILITY_PICTURE))
    if grid and evaluation.mistakes:
        written.append(write_figure(mistakes_grid(evaluation), folder / MISTAKES_PICTURE))
    return written


def _title(evaluation: Evaluation) -> str:
    return f"{evaluation.model}: {evaluation.scores['n']:,} photos of {evaluation.source}"


def _mistakes_csv(evaluation: Evaluation) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["path", "label", "predicted", "probability"])
    writer.writerows(evaluation.mistakes)
    return text.getvalue()


def mistakes_grid(evaluation: Evaluation) -> Any:
    """Return the most confident mistakes, at most 25, as a figure.

    Raises
    ------
    DataError
        There are none, or a photo is not there any more.
    """
    from featcache.report.grid import prediction_grid

    shares, names = evaluation.confidences, evaluation.classes
    said = [
        Prediction(path, names[number], None if shares is None else float(shares[row]))
        for row, (path, number) in enumerate(zip(evaluation.paths, evaluation.predicted, strict=True))
    ]
    most = min(_MOST_TILES, len(evaluation.mistakes))
    if not most:
        raise DataError("the model made no mistake on these photos; there is nothing to draw")
    labels = [names[number] for number in evaluation.labels]
    return prediction_grid(said, labels, most=most, wrong_first=True)
