"""The result of a search for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from featcache.evaluation.choosing import weakness
from featcache.report.tables import looks_sentence, number, percent, short_name
from featcache.run.layout import LEADERBOARD_FILE, LEADERBOARD_TABLE

if TYPE_CHECKING:
    from featcache.search.leaderboard import Entry, Finished, Leaderboard
    from featcache.search.sweep import Sweep

MOST_ENTRIES, MOST_FAILURES = 20, 5


def leaderboard_table(leaderboard: Leaderboard) -> Table:
    """Return the best trials and the default head, one per row, with their scores and searched parameters.

    "=" marks heads that are tied with the best, ">" the recommended one. The table fits 80 columns: long
    parameters wrap.
    """
    photos = leaderboard.entries[0].finished.outcome.scores["n"]
    title = f"sweep, scored on {photos:,} photos"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("head", overflow="fold", max_width=14)
    shows_metric = leaderboard.metric != "accuracy"
    names = ["accuracy", "95% interval", *([short_name(leaderboard.metric)] if shows_metric else []), "fit"]
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("parameters", overflow="fold")
    for entry in _shown(leaderboard):
        cells = _cells(entry, leaderboard.metric if shows_metric else None)
        table.add_row(*map(Text, cells), style="bold" if entry.recommended else "")
    return table


def _shown(leaderboard: Leaderboard) -> list[Entry]:
    """Return the first entries, and the recommended and the default head if they come later."""
    return [
        entry
        for entry in leaderboard.entries
        if entry.rank <= MOST_ENTRIES or entry.recommended or entry.finished.trial is None
    ]


def foot(leaderboard: Leaderboard) -> str:
    """Explain the marks, what the table leaves out, and which heads failed and why."""
    lines = _tied_sentences(leaderboard)
    hidden = len(leaderboard.entries) - len(_shown(leaderboard))
    if hidden:
        lines.append(f"and {hidden:,} more in {LEADERBOARD_TABLE}")
    if leaderboard.failed:
        lines.append(f"{len(leaderboard.failed):,} heads failed:")
        lines += [_failure(one) for one in leaderboard.failed[:MOST_FAILURES]]
    if len(leaderboard.failed) > MOST_FAILURES:
        lines.append(f"  and {len(leaderboard.failed) - MOST_FAILURES:,} more in {LEADERBOARD_FILE}")
    return "\n".join(lines)


def _tied_sentences(leaderboard: Leaderboard) -> list[str]:
    """Say how many heads the photos cannot tell apart, and how one of them was chosen."""
    tied = sum(entry.tied for entry in leaderboard.entries)
    if tied < 2:
        return []
    n = leaderboard.entries[0].finished.outcome.scores["n"]
    heads = len(leaderboard.entries)
    lines = [f"= these {n:,} photos cannot tell {tied:,} of {heads:,} heads apart (McNemar's exact test, 5%)"]
    compared = [entry for entry in leaderboard.entries if entry.cross_validated is not None]
    if not compared:
        return lines
    metric = _full(leaderboard.compared_by)
    chosen = leaderboard.recommended
    if leaderboard.default_stands:
        lines.append(
            f"> the default head: none of the {len(compared) - 1:,} others that were cross-validated is "
            f"better by more than the standard error ({metric} {number(chosen.cross_validated)})"
        )
    else:
        lines.append(
            f"> the best cross-validated {metric} of {len(compared):,} of them: "
            f"{number(chosen.cross_validated)}"
        )
    return lines


def best_sentence(sweep: Sweep) -> str:
    """Name the recommended head, its scores after training it again, and the files of the sweep."""
    chosen, best = sweep.leaderboard.recommended.finished, sweep.best
    trial = "" if chosen.trial is None else f" (trial {chosen.trial})"
    text = f"Recommended: {chosen.head}{trial}, on validation {_scored(best.validation)}"
    weak = weakness(best.validation)
    if weak is not None:
        text += f"; {weak}"
    if best.test:
        text += f"; on test {_scored(best.test)}, {looks_sentence(sweep.looks)}"
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


def _full(metric: str) -> str:
    return metric.replace("_", " ").replace("roc auc", "ROC AUC").replace("macro f1", "macro F1")
