"""Progress of long-running work: a bar on a terminal, elsewhere a line every few seconds."""

from __future__ import annotations

import time
from typing import IO, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from featcache.report.console import SafeConsole
from featcache.reporter import Reporter

_LINE_EVERY_SECONDS = 5.0


class TerminalReporter(Reporter):
    """Writes notes and progress to standard error, so that standard output holds results only.

    Use it as a context manager: the bar is removed at the end.

    Parameters
    ----------
    stream : text stream
    """

    def __init__(self, stream: IO[str]) -> None:
        self._console = SafeConsole(stream)
        self._bar = _bar(self._console) if self._console.is_terminal else None
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}
        self._last_line = time.monotonic()

    def __enter__(self) -> TerminalReporter:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def note(self, text: str) -> None:
        """Write one line."""
        self._console.print(text, soft_wrap=True)

    def advance(self, stage: str, done: int, total: int) -> None:
        """Move the stage's bar, or write a line if the last one is some seconds old."""
        started = self._started.setdefault(stage, time.monotonic())
        rate = done / max(time.monotonic() - started, 1e-9)
        if self._bar:
            self._move(stage, done, total, rate)
        elif done and time.monotonic() - self._last_line >= _LINE_EVERY_SECONDS:
            self._last_line = time.monotonic()
            left = (total - done) / rate if rate else 0.0
            self.note(f"{stage}: {done:,} of {total:,}, {rate:,.1f}/s, {left:,.0f} s left")

    def _move(self, stage: str, done: int, total: int, rate: float) -> None:
        assert self._bar is not None
        if stage not in self._tasks:
            self._tasks[stage] = self._bar.add_task(stage, total=total, rate="")
        shown = f"{rate:,.1f}/s" if done < total else ""
        self._bar.update(self._tasks[stage], completed=done, total=total, rate=shown, visible=done < total)


def _bar(console: SafeConsole) -> Progress:
    columns: list[Any] = [
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    ]
    return Progress(*columns, console=console, transient=True)
