"""Runs one measurement in a process of its own, so that no side profits or suffers from another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.photos import ROOT

# Far longer than any measurement takes: a process that hangs is an error, not a night's wait.
_TIMEOUT = 3600


class ChildError(Exception):
    """A measuring process failed.

    Attributes
    ----------
    reason : str
        The last line that it said; the message holds more of them.
    """

    def __init__(self, command: Sequence[str], status: int, said: str) -> None:
        lines = said.strip().splitlines() or ["it said nothing"]
        super().__init__("\n".join([f"{' '.join(command[:5])} … ended with {status}:", *lines[-15:]]))
        self.reason = lines[-1]


def timed(command: Sequence[str]) -> tuple[str, float]:
    """Run a command from the project's folder; return its standard output and its seconds.

    Raises
    ------
    ChildError
        It ended with another exit status than 0, or not at all.
    """
    started = time.perf_counter()
    # TensorFlow's greetings only
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3"} | dict(os.environ)
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise ChildError(command, -1, f"it was still running after {_TIMEOUT} s") from None
    seconds = time.perf_counter() - started
    if done.returncode:
        raise ChildError(command, done.returncode, done.stderr or done.stdout)
    return done.stdout, seconds


def child(module: str, *arguments: object, python: str = sys.executable) -> dict[str, Any]:
    """Run ``python -m benchmarks.MODULE`` and return its last line, JSON, with ``process_seconds``.

    Raises
    ------
    ChildError
        The process failed.
    """
    output, seconds = timed([python, "-m", f"benchmarks.{module}", *map(str, arguments)])
    return {**json.loads(output.splitlines()[-1]), "process_seconds": round(seconds, 3)}
