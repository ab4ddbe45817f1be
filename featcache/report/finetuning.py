"""The result of fine-tuning for a terminal: the layers, the epochs, and whether it improved the model."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from featcache.bases.boundary import LayerRow
from featcache.finetuning.stage import Finetuning
from featcache.report.tables import looks_sentence, number, percent


def layers_table(result: Finetuning) -> Table:
    """Return the layers of the network, with the frozen ones up to the boundary as one row."""
    at = next(row.index for row in result.layers if row.name == result.boundary)
    table = Table(title="layers of the base", title_justify="left", box=None, pad_edge=False)
    for name, justify in (("", "right"), ("layer", "left"), ("type", "left"), ("output", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("parameters", justify="right")
    table.add_column("trained")
    table.add_row(*_frozen_row(result.layers[: at + 1]), style="dim")
    for row in result.layers[at + 1 :]:
        shape = " × ".join(map(str, row.output_shape))
        trained = "yes" if row.trainable else ""
        table.add_row(str(row.index), row.name, row.type, shape, f"{row.parameters:,}", trained)
    return table


def _frozen_row(rows: Sequence[LayerRow]) -> list[str]:
    shape = " × ".join(map(str, rows[-1].output_shape))
    parameters = sum(row.parameters for row in rows)
    return [f"0–{rows[-1].index}", f"… {rows[-1].name}", "cached", shape, f"{parameters:,}", ""]


def epochs_table(result: Finetuning) -> Table:
    """Return a row per epoch, after one with the scores before the first."""
    measured, history = result.history, result.history.per_epoch
    has_test = "test_accuracy" in history
    drawn = ", reinitialized" if result.fresh_head else ""
    title = f"fine-tuning from {result.head}{drawn}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    others = [name for name in measured.before if name not in ("loss", "accuracy")]
    names = ["epoch", "loss", "accuracy", "val. loss", "val. accuracy"]
    names += [f"val. {name.replace('_', ' ')}" for name in others] + (["test"] if has_test else [])
    for name in names:
        table.add_column(name, justify="right")
    before = measured.before
    metrics = [number(before[name]) for name in others]
    table.add_row("before", "", "", number(before["loss"]), percent(before["accuracy"]), *metrics)
    for place in range(measured.epochs):
        kept = place + 1 == measured.best_epoch
        cells = [
            number(history["loss"][place]),
            percent(history["accuracy"][place]),
            number(history["val_loss"][place]),
            percent(history["val_accuracy"][place]),
            *(number(history[f"val_{name}"][place]) for name in others),
            *([percent(history["test_accuracy"][place])] if has_test else []),
        ]
        table.add_row(str(place + 1), *cells, style="bold" if kept else "")
    return table


def sentence(result: Finetuning) -> str:
    """Say how fine-tuning changed the validation accuracy, and where the model is."""
    before, after = result.history.before["accuracy"], result.result.validation["accuracy"]
    change = "better than" if after > before else "worse than" if after < before else "the same as"
    text = (
        f"Fine-tuned: {percent(after)} on validation in epoch {result.history.best_epoch}, {change} "
        f"{percent(before)} before"
    )
    if result.result.test:
        looks = looks_sentence(result.results.looks)
        text += f"; on test {percent(result.result.test['accuracy'])}, {looks}"
    return f"{text}\nModel: {result.result.model}"
