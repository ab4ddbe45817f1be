"""What a person sees of an export: what was written, and how alike it answers."""

from __future__ import annotations

from rich.table import Table

from featcache.exporting.stage import Export
from featcache.report.tables import percent


def export_table(result: Export) -> Table:
    """Return one row: the format, its size and what the check found."""
    found = result.comparison
    table = Table(title=f"checked with {result.runtime}", title_justify="left", box=None, pad_edge=False)
    table.add_column("format")
    for name in ("size", "photos", "largest difference", "equal labels", "accuracy before", "exported"):
        table.add_column(name, justify="right")
    table.add_row(
        result.to if result.quantize == "none" else f"{result.to}, {result.quantize}",
        f"{result.bytes / 1e6:,.1f} MB",
        f"{found.photos:,}",
        f"{found.largest_difference:.2g}",
        percent(found.equal_labels),
        percent(found.accuracy),
        percent(found.exported_accuracy),
    )
    return table
