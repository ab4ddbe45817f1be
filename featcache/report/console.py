"""Tables and texts on a terminal, safe to print whatever names of files and classes they contain."""

from __future__ import annotations

import sys
from typing import IO, Any

from rich.console import Console
from rich.text import Text

from featcache.report.streams import printable

# Tables in a pipe or file are not cut: it has no width.
_PIPE_WIDTH = 200


class SafeConsole(Console):
    """A console to which names from files and folders can be given as they are.

    Control characters are escaped, and neither markup nor emoji codes in a text mean anything.
    """

    def __init__(self, file: IO[str], **options: Any) -> None:
        super().__init__(file=file, highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as rich's text, without control characters."""
        return super().render_str(printable(text), **options)

    def render_lines(self, renderable: Any, *arguments: Any, **options: Any) -> Any:
        """Render to lines; texts are escaped as strings are."""
        return super().render_lines(_safe(renderable), *arguments, **options)


def _safe(renderable: Any) -> Any:
    if isinstance(renderable, Text) and printable(renderable.plain) != renderable.plain:
        return Text(printable(renderable.plain), renderable.style, no_wrap=renderable.no_wrap)
    return renderable


def print_parts(*parts: Any) -> None:
    """Print texts and tables to standard output."""
    console = SafeConsole(sys.stdout, **({} if sys.stdout.isatty() else {"width": _PIPE_WIDTH}))
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str))
