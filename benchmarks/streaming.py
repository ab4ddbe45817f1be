"""A head on features that are larger than the memory they may take: rows per second and peak memory.

python -m benchmarks.streaming [--quick] [--rows 1000000]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.machine import in_words, machine
from benchmarks.output import console, save
from benchmarks.processes import child

ROWS, QUICK_ROWS = 1_000_000, 20_000


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streaming", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run: few rows")
    parser.add_argument("--rows", type=int, default=ROWS, help="rows of 1,280 float16 numbers on disk")
    options = parser.parse_args(arguments)
    rows = QUICK_ROWS if options.quick else options.rows
    facts = machine()
    console().print(in_words(facts), highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "features.h5"
        child("streaming_child", "write", file, rows)
        size = file.stat().st_size / 1e9
        result = child("streaming_child", "train", file)
    console().print(_table(rows, size, result))
    saved = save("streaming", {"machine": facts, "rows": rows, "file_gb": round(size, 2), "result": result})
    console().print(f"written to {saved}")


def _table(rows: int, size: float, result: dict[str, Any]) -> Table:
    shown = Table(title="A linear head on features on disk, batches of 256", title_justify="left")
    for heading in ("rows", "file, GB", "epochs", "rows/s", "peak, MB", "accuracy"):
        shown.add_column(heading, justify="right")
    shown.add_row(
        f"{rows:,}",
        f"{size:.2f}",
        str(result["epochs"]),
        f"{rows * result['epochs'] / result['seconds']:,.0f}",
        f"{result['peak_mb']:,.0f}",
        f"{result['accuracy']:.1%}",
    )
    return shown


if __name__ == "__main__":
    main()
