"""Progress and notes of long-running work; the default reporter is silent."""

from __future__ import annotations


class Reporter:
    """Receives progress and notes. Subclass it to show them; every method may be called often."""

    def note(self, text: str) -> None:
        """Called with one sentence for the user."""

    def advance(self, stage: str, done: int, total: int) -> None:
        """Called when `done` of `total` steps of a stage are finished; last with ``done == total``."""


SILENT = Reporter()
