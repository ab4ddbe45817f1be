"""What long work tells while it runs; the default listener says nothing."""

from __future__ import annotations


class Reporter:
    """Listens to long work. Subclass it to show progress; every method may be called often."""

    def note(self, text: str) -> None:
        """Hear one sentence that a person should know."""

    def advance(self, stage: str, done: int, total: int) -> None:
        """Hear that `done` of `total` steps of a stage are over; the last call has ``done == total``."""


SILENT = Reporter()
