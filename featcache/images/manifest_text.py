"""A manifest's bytes as rows of text: the encodings and separators that spreadsheets write."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

_MARKS = (
    # the marks of UTF-32 begin with those of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


@dataclass(frozen=True)
class ManifestText:
    """A manifest's text, and what had to be guessed to read it.

    Attributes
    ----------
    text : str
        Without a mark of its encoding and without Excel's line ``sep=;``.
    separator : str
    skipped : int
        Lines in front of `text`: 0 or 1.
    guesses : tuple of str
        Parts of a sentence: "as cp1252 text"; empty for UTF-8 with commas.
    """

    text: str
    separator: str
    skipped: int
    guesses: tuple[str, ...]

    @classmethod
    def of(cls, content: bytes) -> ManifestText:
        """Find out encoding and separator.

        Raises
        ------
        UnicodeDecodeError
            The bytes are not text.
        """
        text, encoding = _decoded(content)
        first = re.split(r"\r\n|\r|\n", text, maxsplit=1)
        declared = first[0].strip().strip('"').lower()
        if declared.startswith("sep=") and len(declared) == 5:
            text, separator, skipped = "".join(first[1:]), declared[4], 1
        else:
            separator, skipped = _separator_of(first[0]), 0
        guesses = [] if encoding is None else [f"as {encoding} text"]
        if separator != ",":
            guesses.append(f"with {_SEPARATORS.get(separator, repr(separator))} as separators")
        return cls(text, separator, skipped, tuple(guesses))

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the number of each row's first line, from 1, and its values; blank lines are left out.

        Raises
        ------
        csv.Error
            A value is longer than 131,072 characters.
        """
        reader = csv.reader(io.StringIO(self.text, newline=""), delimiter=self.separator)
        start = self.skipped + 1
        for row in reader:
            if row:
                yield start, row
            start = self.skipped + reader.line_num + 1


def _decoded(content: bytes) -> tuple[str, str | None]:
    """Return the text, and its encoding unless that is UTF-8."""
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    if encoding is None and len(content) >= 8:  # UTF-16 without a mark: every other byte of a name is zero
        if not any(content[1:8:2]):
            encoding = "utf-16-le"
        elif not any(content[0:8:2]):
            encoding = "utf-16-be"
    if encoding is not None:
        return content.decode(encoding), encoding
    try:
        return content.decode("utf-8-sig"), None
    except UnicodeDecodeError:
        # what Excel writes in Western Europe and America; Latin-1 has no printable character more
        return content.decode("cp1252"), "cp1252"


def _separator_of(header: str) -> str:
    """Return the separator that gives the columns path and label, else the one that gives most columns."""
    names = {
        one: [name.strip().casefold() for name in next(csv.reader([header], delimiter=one), [])]
        for one in _SEPARATORS
    }
    for separator, columns in names.items():
        if {"path", "label"} <= set(columns):
            return separator
    return max(names, key=lambda separator: len(names[separator]))
