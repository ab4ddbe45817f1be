"""Calls of a classifier: what it raises and warns of is told apart from errors of this package."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from typing import Any, TypeVar

from featcache.errors import ClassifierError, FeatcacheError

_Result = TypeVar("_Result")

_PACKAGE = str(Path(__file__).resolve().parents[1])

# what scikit-learn's classifiers raise for settings that do not go with the data, or with each other
_ERRORS = (ValueError, TypeError, IndexError, ArithmeticError, NotImplementedError)


def call(method: Callable[..., _Result], *arguments: Any, **options: Any) -> _Result:
    """Call a classifier's method.

    Raises
    ------
    ClassifierError
        The classifier raised an error about its data or its settings.
    Exception
        Any other one unchanged, among them those of this package's own code.
    """
    try:
        return method(*arguments, **options)
    except FeatcacheError:
        raise
    except _ERRORS as error:
        if not _is_the_classifiers(error):
            raise
        raise ClassifierError(first_line(error)) from error


def _is_the_classifiers(error: Exception) -> bool:
    """Whether no code of this package ran below the call, or it only passed a message of scikit-learn on.

    A Dense head is code of this package; it leaves the validation of data to scikit-learn.
    """
    traceback = error.__traceback__
    files = [frame.f_code.co_filename for frame, _ in walk_tb(traceback.tb_next if traceback else None)]
    if not files:  # the call itself was wrong
        return False
    ours = any(Path(file).is_relative_to(_PACKAGE) for file in files)
    return not ours or (isinstance(error, ValueError) and "sklearn" in Path(files[-1]).parts)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the name of its type."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collect the first line of every warning, each once; the list is filled at the end of the block."""
    lines: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        yield lines
    lines.extend(
        dict.fromkeys(str(one.message).strip().splitlines()[0] for one in caught if str(one.message).strip())
    )
