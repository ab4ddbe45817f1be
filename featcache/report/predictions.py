"""The most probable classes of predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from featcache.errors import ModelError

if TYPE_CHECKING:
    from featcache.model import Model, Prediction


def check_top(model: Model, count: int | None) -> None:
    """Make sure that a model gives the probabilities which ``--top`` shows.

    Raises
    ------
    ModelError
        Its head has no probabilities.
    """
    if count is not None and not model.has_probabilities:
        raise ModelError(
            f"--top {count} needs probabilities, and head {model.name!r} gives none; leave it out, or choose "
            "the model of another head"
        )


def most_probable(prediction: Prediction, count: int) -> list[tuple[str, float]]:
    """Return the most probable classes, at most so many, with their probabilities."""
    shares = prediction.probabilities or {}
    return sorted(shares.items(), key=lambda one: -one[1])[:count]


def prediction_json(prediction: Prediction, top: int | None = None) -> dict[str, Any]:
    """Return a prediction as JSON-ready data; with `top`, the most probable classes instead of all."""
    facts = prediction.to_json()
    if top is None:
        return facts
    del facts["probabilities"]
    best = most_probable(prediction, top)
    return {**facts, "top": [{"label": label, "probability": share} for label, share in best]}


def csv_row(prediction: Prediction, classes: tuple[str, ...], top: int | None = None) -> list[Any]:
    """Return the cells of `csv_columns` for a prediction."""
    first = [prediction.path, prediction.label or "", prediction.probability]
    if top is None:
        shares = prediction.probabilities or {}
        return [*first, *(shares.get(name) for name in classes)]
    cells = [cell for one in most_probable(prediction, top) for cell in one]
    return [*first, *cells, *[None] * (2 * min(top, len(classes)) - len(cells))]


def csv_columns(classes: tuple[str, ...], top: int | None = None) -> list[str]:
    """Return the columns: a class each, or with `top` a pair for each of the most probable classes."""
    first = ["path", "label", "probability"]
    if top is None:
        return [*first, *classes]
    places = range(1, min(top, len(classes)) + 1)
    return [*first, *(f"{name}_{place}" for place in places for name in ("label", "probability"))]
