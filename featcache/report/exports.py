"""The table of an export: what was written, and how its predictions agree with the model's."""

from __future__ import annotations

from rich.table import Table

from featcache.exporting.stage import Export
from featcache.report.tables import percent


def export_table(result: Export) -> Table:
    """Return a row for the check in f32, and one for each further comparison that is only stated."""
    table = Table(title=f"checked with {result.runtime}", title_justify="left", box=None, pad_edge=False)
    table.add_column("compared")
    for name in ("size", "photos", "largest difference", "equal labels", "accuracy before", "exported"):
        table.add_column(name, justify="right")
    name = result.to if result.quantize == "none" else f"{result.to}, {result.quantize}"
    rows = {
        f"{name} in f32, model in f32": result.comparison,
        f"{name} without options, model in f32": result.by_default,
        f"{name} in f32, model in its own precision": result.as_trained,
    }
    for compared, found in rows.items():
        if found is not None:
            table.add_row(
                compared,
                f"{result.bytes / 1e6:,.1f} MB",
                f"{found.photos:,}",
                f"{found.largest_difference:.2g}",
                percent(found.equal_labels),
                percent(found.accuracy),
                percent(found.exported_accuracy),
            )
    return table
