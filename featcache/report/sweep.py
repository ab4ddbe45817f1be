"""The result of a search for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from featcache.report.tables import number, percent
from featcache.run.layout import LEADERBOARD_FILE, LEADERBOARD_TABLE

if TYPE_CHECKING:
    from featcache.search.leaderboard import Entry, Finished, Leaderboard
    from featcache.search.sweep import Sweep

MOST_ENTRIES, MOST_FAILURES = 20, 5


def leaderboard_table(leaderboard: Leaderboard) -> Table:
    """Return the best trials, one per row, with their scores and searched parameters.

    "=" marks trials that are tied with the best, ">" the recommended one. The table fits 80 columns: long
    parameters wrap.
    """
    table = Table(title="sweep, scored on validation", title_justify="left", box=None, pad_edge=False)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("head", overflow="fold", max_width=14)
    shows_metric = leaderboard.metric != "accuracy"
    names = ["accuracy", "95% interval", *([_short(leaderboard.metric)] if shows_metric else []), "fit"]
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("parameters", overflow="fold")
    for entry in leaderboard.entries[:MOST_ENTRIES]:
        cells = _cells(entry, leaderboard.metric if shows_metric else None)
        table.add_row(*map(Text, cells), style="bold" if entry.recommended else "")
    return table


def foot(leaderboard: Leaderboard) -> str:
    """Explain the marks, what the table leaves out, and which heads failed and why."""
    tied = sum(entry.tied for entry in leaderboard.entries)
    lines = []
    if tied > 1:
        lines.append(
            f"= {tied:,} heads are not significantly different from the best "
            "(McNemar's exact test, 5%); > is the simplest of them"
        )
    if len(leaderboard.entries) > MOST_ENTRIES:
        lines.append(f"and {len(leaderboard.entries) - MOST_ENTRIES:,} more in {LEADERBOARD_TABLE}")
    if leaderboard.failed:
        lines.append(f"{len(leaderboard.failed):,} heads failed:")
        lines += [_failure(one) for one in leaderboard.failed[:MOST_FAILURES]]
    if len(leaderboard.failed) > MOST_FAILURES:
        lines.append(f"  and {len(leaderboard.failed) - MOST_FAILURES:,} more in {LEADERBOARD_FILE}")
    return "\n".join(lines)


def best_sentence(sweep: Sweep) -> str:
    """Name the recommended head, its scores after training it again, and the files of the sweep."""
    chosen, best = sweep.leaderboard.recommended.finished, sweep.best
    text = f"Recommended: {chosen.head} (trial {chosen.trial}), on validation {_scored(best.validation)}"
    if best.test:
        text += f"; on test {_scored(best.test)}"
    return f"{text}\nModel: {best.model}\nLeaderboard: {sweep.folder / LEADERBOARD_TABLE}"


def _scored(scores: Mapping[str, Any]) -> str:
    low, high = percent(scores["accuracy_low"]), percent(scores["accuracy_high"])
    return f"{percent(scores['accuracy'])} ({low} – {high}, {scores['n']:,} photos)"


def _cells(entry: Entry, metric: str | None) -> list[str]:
    finished, outcome = entry.finished, entry.finished.outcome
    scores = outcome.scores
    mark = ">" if entry.recommended else "=" if entry.tied else " "
    shown = [f"{key}={_value(value)}" for key, value in finished.searched.items()]
    if outcome.stopped:
        shown.append(f"(stopped after {outcome.epochs} epochs)")
    if outcome.constant:
        shown.append("(predicts one class only)")
    return [
        f"{mark}{entry.rank:>3}",
        finished.head,
        percent(scores["accuracy"]),
        f"{100 * scores['accuracy_low']:.1f} – {100 * scores['accuracy_high']:.1f}",
        *([number(scores[metric])] if metric else []),
        f"{outcome.fit_seconds:.1f} s",
        " ".join(shown),
    ]


def _failure(one: Finished) -> str:
    shown = ", ".join(f"{key}={_value(value)}" for key, value in one.searched.items())
    return f"  {one.head} ({shown or f'trial {one.trial}'}): {one.outcome.reason}"


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace(" ", "")


def _short(metric: str) -> str:
    return {"balanced_accuracy": "balanced", "macro_f1": "macro F1", "log_loss": "log loss"}.get(
        metric, "AUC"
    )
