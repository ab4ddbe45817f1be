"""Standard output and standard error: closed or full streams, encodings, control characters, libtiff."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

from featcache.errors import OutputError
from featcache.report.predictions import csv_columns, csv_row

if TYPE_CHECKING:
    from featcache.model import Prediction

# C0 without tab and line feed, delete, C1, and the characters that reorder or hide text (Trojan Source,
# Boucher and Anderson, 2021); surrogates stand for bytes of a name that are not UTF-8.
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

# What Pillow's libtiff writes to standard error, such as "TIFFReadDirectory: Warning, Unknown field ...".
_LIBTIFF = re.compile(
    rb"_?(TIFF|tempfile\.tif|filename|O?JPEG|LZW|Fax|CCITT|ZIP|ZSTD|LZMA|PackBits|PixarLog|Log)\S*: "
)


def printable(text: str) -> str:
    """Return `text` with control characters and undecodable bytes as visible escapes."""
    return _UNSAFE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    if 0xDC80 <= code <= 0xDCFF:  # a byte that os.fsdecode could not decode
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def prepare_streams() -> None:
    """Make the standard streams take any text, and keep closed ones from being taken by other files.

    Raises
    ------
    OutputError
        Standard output is closed.
    """
    for handle in (0, 1, 2):
        try:
            os.fstat(handle)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, this one
    closed = sys.stdout is None
    for name, handle in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(handle, "w", encoding="utf-8", closefd=False))
        with contextlib.suppress(AttributeError):  # not of a stream that a program has put in its place
            getattr(sys, name).reconfigure(errors="backslashreplace")
    if closed:
        raise OutputError("standard output is closed; redirect it to a file or to /dev/null")


def finish_output() -> None:
    """Write out what is left of standard output.

    Raises
    ------
    OutputError
        It cannot be written.
    BrokenPipeError
        Nobody reads it any more.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        drop_output()
        raise
    except OSError as error:
        drop_output()
        raise OutputError(f"standard output: {error.strerror or error}") from None


def drop_output() -> None:
    """Let what standard output still holds go nowhere: Python would try to write it once more at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def print_error(text: str) -> None:
    """Print a failure to standard error, as one line."""
    line = " ".join(printable(text).split("\n"))
    with contextlib.suppress(OSError):  # there is no other place to say it
        print(f"featcache: {line}", file=sys.stderr, flush=True)  # noqa: T201


def write_json(value: Any, out: IO[str]) -> None:
    """Write a value as JSON, in UTF-8; undecodable bytes of file names become JSON escapes of surrogates."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    _write(out, text.encode("utf-8", "backslashreplace").decode() + "\n")


def write_csv(
    predictions: Sequence[Prediction],
    classes: tuple[str, ...],
    out: IO[str],
    top: int | None = None,
    more: Sequence[str] = (),
) -> None:
    """Write predictions as CSV, in UTF-8; names of files keep their bytes."""
    lines: list[str] = []
    writer = csv.writer(_Lines(lines))
    writer.writerow(csv_columns(classes, top, more))
    writer.writerows(csv_row(one, classes, top, more) for one in predictions)
    _write(out, "".join(lines))


class _Lines:
    """What `csv.writer` writes to: a list of lines."""

    def __init__(self, lines: list[str]) -> None:
        self.write = lines.append


def _write(out: IO[str], text: str) -> None:
    try:
        with out:
            out.write(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output: {error.strerror or error}") from None


@contextlib.contextmanager
def output_for_programs() -> Iterator[IO[str]]:
    """Give standard output for a result; what libraries print meanwhile goes to standard error.

    Also what is printed from compiled code.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    out = os.fdopen(os.dup(kept), "w", encoding="utf-8", errors="surrogateescape", newline="")
    try:
        yield out
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


@contextlib.contextmanager
def without_messages_of_libtiff() -> Iterator[None]:
    """Drop what libtiff writes to standard error; other messages of compiled code are passed on, escaped.

    Only the process's own standard error is filtered, not a stream that a program has put in its place.
    """
    try:
        is_own = sys.stderr.fileno() == 2
    except (OSError, ValueError, AttributeError):
        is_own = False
    if not is_own:
        yield
        return
    sys.stderr.flush()
    original, kept = os.dup(2), sys.stderr
    reader, writer = os.pipe()
    os.dup2(writer, 2)
    os.close(writer)
    sys.stderr = os.fdopen(
        os.dup(original), "w", encoding=kept.encoding, errors="backslashreplace", buffering=1
    )
    # a daemon: processes that were started meanwhile keep the pipe open
    forwarding = threading.Thread(target=_forward, args=(reader, original), daemon=True)
    forwarding.start()
    try:
        yield
    finally:
        sys.stderr.close()
        sys.stderr = kept
        os.dup2(original, 2)
        forwarding.join(timeout=1.0)


def _forward(reader: int, target: int) -> None:
    with os.fdopen(reader, "rb") as lines:
        for line in lines:
            if not _LIBTIFF.match(line):
                text = printable(line.decode("utf-8", "surrogateescape"))
                os.write(target, text.encode("utf-8", "backslashreplace"))
    os.close(target)
