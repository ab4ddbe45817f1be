"""Where results go: the terminal and ``benchmarks/results/``."""

from __future__ import annotations

import json
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.photos import ROOT


@cache
def console() -> Console:
    """Return the terminal; a pipe has no width, and tables would be cut at 80 columns."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=140)


def save(name: str, result: dict[str, Any]) -> Path:
    """Write a result under ``benchmarks/results/`` and return its path relative to the project."""
    moment = datetime.now()
    path = ROOT / "benchmarks" / "results" / f"{name}-{moment:%Y-%m-%d-%H%M%S}.json"
    path.parent.mkdir(exist_ok=True)
    whole = {"benchmark": name, "date": f"{moment:%Y-%m-%d %H:%M}", **result}
    path.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path.relative_to(ROOT)
