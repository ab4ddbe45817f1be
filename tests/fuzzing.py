"""Reads mutated files in a child process, because HDF5 itself can crash on them."""

import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from featcache.errors import FeatcacheError

_SECONDS = 60


WAYS = ("flip", "flip", "flip", "cut", "longer", "splice", "zero")


def mutations(data: bytes, count: int, seed: int, ways: Sequence[str] = WAYS) -> Iterator[bytes]:
    """Yield `count` copies of `data`, each with flipped bits, cut, lengthened, spliced or zeroed."""
    rng = random.Random(seed)
    for _ in range(count):
        changed = bytearray(data)
        how = rng.choice(ways)
        at, length = rng.randrange(len(data)), rng.randrange(1, 600)
        if how == "flip":
            for _ in range(rng.choice([1, 1, 4, 30])):
                changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif how == "cut":
            del changed[at:]
        elif how == "longer":
            changed += rng.randbytes(length)
        elif how == "splice":
            start = rng.randrange(len(data))
            changed[at : at + length] = data[start : start + length]
        else:
            changed[at : at + length] = bytes(len(changed[at : at + length]))
        if changed != data:
            yield bytes(changed)


def outcomes(cases: Iterable[bytes], read: Callable[[bytes], str], expected: str) -> Counter[str]:
    """Count what becomes of reading each case in a process of its own.

    Returns
    -------
    Counter
        Of ``"same"``, ``"refused"``, ``"exception NAME"``, ``"signal NAME"`` and ``"OTHER CONTENT"``.
    """
    return Counter(_outcome(case, read, expected) for case in cases)


def _outcome(case: bytes, read: Callable[[bytes], str], expected: str) -> str:
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        signal.alarm(_SECONDS)  # HDF5 can loop for ever; the signal ends the child
        try:
            answer = "same" if read(case) == expected else "OTHER CONTENT"
        except FeatcacheError as error:
            answer = "refused" if "\n" not in str(error) else "more than one line"
        except BaseException as error:  # noqa: BLE001
            answer = f"exception {type(error).__name__}"
        os.write(send, answer.encode())
        os._exit(0)
    os.close(send)
    with os.fdopen(receive) as pipe:
        answer = pipe.read()
    status = os.waitpid(child, 0)[1]
    return f"signal {signal.Signals(os.WTERMSIG(status)).name}" if os.WIFSIGNALED(status) else answer
