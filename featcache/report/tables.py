"""Results as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from featcache.extraction import Extraction, Profile
    from featcache.model import Prediction
    from featcache.train import HeadResult, Training


def heads_table(training: Training) -> Table:
    """Return one row per head with its validation scores, the best one marked."""
    table = Table(title="heads, scored on validation", title_justify="left", box=None, pad_edge=False)
    table.add_column("head")
    for name in ("accuracy", "95% interval", "balanced", "macro F1", "log loss", "AUC", "fit"):
        table.add_column(name, justify="right")
    for head in training.heads:
        best = head.name == training.best
        table.add_row(*_head_row(head), style="bold" if best else "")
    return table


def _head_row(head: HeadResult) -> list[str]:
    scores = head.validation
    return [
        head.name,
        percent(scores["accuracy"]),
        f"{percent(scores['accuracy_low'])} – {percent(scores['accuracy_high'])}",
        percent(scores["balanced_accuracy"]),
        number(scores["macro_f1"]),
        number(scores["log_loss"]),
        number(scores["roc_auc"]),
        f"{head.fit_seconds:.1f} s",
    ]


def best_sentence(training: Training) -> str:
    """Say which head is best, how well it does on test if there is one, and where it is."""
    best = training[training.best]
    text = f"Best on validation: {best.name}"
    if best.test:
        low, high = percent(best.test["accuracy_low"]), percent(best.test["accuracy_high"])
        text += f"; on test {percent(best.test['accuracy'])} ({low} – {high}, {best.test['n']:,} photos)"
    return f"{text}\nModel: {best.model}"


def extraction_sentence(extraction: Extraction) -> str:
    """Say what stage 1 did."""
    speed = f" at {extraction.images_per_second:,.1f} images/s" if extraction.computed else ""
    skipped = f", {len(extraction.skipped):,} skipped" if extraction.skipped else ""
    return (
        f"{extraction.rows:,} rows: {extraction.computed:,} computed{speed}, "
        f"{extraction.reused:,} reused{skipped}, {extraction.seconds:.1f} s\n"
        f"Features: {extraction.features_file}"
    )


def profile_table(profile: Profile) -> Table:
    """Return where the time of computing went: seconds of all workers together, and their share."""
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
        table.add_row(Text(path), Text(reason))
    if len(skipped) > most:
        table.add_row(f"and {len(skipped) - most:,} more", "")
    return table


def predictions_table(predictions: Sequence[Prediction]) -> Table:
    """Return one row per photo: class and probability, or why there is none."""
    table = Table(box=None, pad_edge=False)
    table.add_column("photo", overflow="fold")
    table.add_column("class")
    table.add_column("probability", justify="right")
    for one in predictions:
        label = Text(one.label) if one.label is not None else Text(one.reason or "", style="red")
        table.add_row(Text(one.path), label, "" if one.probability is None else f"{one.probability:.3f}")
    return table


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
    """Write a share of 1 as percent."""
    return "–" if share is None else f"{100 * share:.1f}%"


def number(value: float | None) -> str:
    """Write a score."""
    return "–" if value is None else f"{value:.3f}"
