"""What commands print, and the reporter that they work with."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from featcache.errors import FeatcacheError

if TYPE_CHECKING:
    from featcache.extraction.stage import Extraction
    from featcache.finetuning.stage import Finetuning
    from featcache.reporter import Reporter
    from featcache.training import Training

_T = TypeVar("_T")


@contextlib.contextmanager
def working(for_programs: bool) -> Iterator[tuple["Reporter", IO[str]]]:
    """Give a reporter and the stream for results."""
    from featcache.report import streams
    from featcache.report.progress import TerminalReporter

    with contextlib.ExitStack() as stack:
        stack.enter_context(streams.without_messages_of_libtiff())
        out = stack.enter_context(streams.output_for_programs()) if for_programs else sys.stdout
        yield stack.enter_context(TerminalReporter(sys.stderr)), out


class Failures:
    """What failed while the rest of a command worked: it is raised when the results are printed.

    Parameters
    ----------
    training : Training, optional
        Its heads that could not be trained count as failures.
    """

    def __init__(self, training: "Training | None" = None) -> None:
        self._sentences: list[str] = []
        if training is not None and training.failed:
            heads = len(training.heads) + len(training.failed)
            names = ", ".join(failure.name for failure in training.failed)
            self._sentences.append(f"{len(training.failed)} of {heads} heads failed: {names}")

    def of(self, work: Callable[[], _T], otherwise: _T) -> _T:
        """Return what `work` gives, or `otherwise` where it fails."""
        try:
            return work()
        except FeatcacheError as error:
            self._sentences.append(str(error))
            return otherwise

    def raise_if_any(self) -> None:
        """Raise a FeatcacheError with all failures."""
        if self._sentences:
            raise FeatcacheError("; ".join(self._sentences))


def print_extraction(extraction: "Extraction", profile: bool) -> None:
    """Print what an extraction did, and with `profile` where its time went."""
    from featcache.report import tables

    if extraction.skipped:
        print_text(tables.skipped_table(extraction.skipped))
    print_text(tables.extraction_sentence(extraction))
    if profile:
        print_text(tables.profile_table(extraction.profile))


def print_training(training: "Training", profile: bool) -> None:
    """Print the table of heads, after the extraction."""
    from featcache.report import tables

    print_extraction(training.extraction, profile)
    print_text("", tables.heads_table(training), "", *tables.head_sentences(training))
    print_text(tables.best_sentence(training))


def print_finetuning(result: "Finetuning", curves: Path | None) -> None:
    """Print layers and epochs of a fine-tuning, after the extraction."""
    from featcache.report import finetuning as tables

    print_extraction(result.extraction, profile=False)
    print_text("", tables.layers_table(result), "", tables.epochs_table(result), "", tables.sentence(result))
    if curves is not None:
        print_text(f"Learning curves: {curves}")


def print_text(*parts: Any) -> None:
    """Print texts and tables on standard output."""
    from featcache.report.console import print_parts

    print_parts(*parts)


def print_json(value: Any, out: IO[str]) -> None:
    """Print JSON-ready data on the stream for programs."""
    from featcache.report.streams import write_json

    write_json(value, out)
