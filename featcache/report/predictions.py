"""The most probable classes of predictions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from featcache.errors import ModelError
from featcache.prediction import NONE_OF_THESE

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


def further_columns(model: Model, reject: float | None, set_size: float | None) -> tuple[str, ...]:
    """Return the columns that a model's predictions have beside class and probabilities."""
    shown = {
        "novelty": model.novelty is not None,
        "rejected": reject is not None,
        "set": set_size is not None,
    }
    return tuple(name for name, is_shown in shown.items() if is_shown)


def most_probable(prediction: Prediction, count: int) -> list[tuple[str, float]]:
    """Return the most probable classes, at most so many, with their probabilities."""
    shares = prediction.probabilities or {}
    return sorted(shares.items(), key=lambda one: -one[1])[:count]


def prediction_json(
    prediction: Prediction, top: int | None = None, more: Sequence[str] = ()
) -> dict[str, Any]:
    """Return a prediction as JSON-ready data; with `top`, the most probable classes instead of all.

    The keys `more` are there for every photo, with null where it could not be decoded.
    """
    facts = prediction.to_json()
    facts |= {name: facts.get(name) for name in more}
    if top is None:
        return facts
    del facts["probabilities"]
    best = most_probable(prediction, top)
    return {**facts, "top": [{"label": label, "probability": share} for label, share in best]}


def csv_row(
    prediction: Prediction, classes: tuple[str, ...], top: int | None = None, more: Sequence[str] = ()
) -> list[Any]:
    """Return the cells of `csv_columns` for a prediction; lists and truth values as in JSON."""
    first = [prediction.path, prediction.label or "", prediction.probability]
    last = [_cell(prediction.to_json().get(name)) for name in more]
    if top is None:
        shares = prediction.probabilities or {}
        return [*first, *(shares.get(name) for name in classes), *last]
    cells = [cell for one in most_probable(prediction, top) for cell in one]
    return [*first, *cells, *[None] * (2 * min(top, len(classes)) - len(cells)), *last]


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, bool | list) else value


def csv_columns(classes: tuple[str, ...], top: int | None = None, more: Sequence[str] = ()) -> list[str]:
    """Return the columns: a class each, or with `top` a pair for each of the most probable; then `more`."""
    first = ["path", "label", "probability"]
    if top is None:
        return [*first, *classes, *more]
    places = range(1, min(top, len(classes)) + 1)
    pairs = [f"{name}_{place}" for place in places for name in ("label", "probability")]
    return [*first, *pairs, *more]


def sentences(predictions: Sequence[Prediction], reject: float | None, set_size: float | None) -> list[str]:
    """Say how many photos were rejected, and what the sets of classes mean."""
    decoded = [one for one in predictions if one.reason is None]
    return [
        *([] if reject is None else [_of_rejected(decoded, reject)]),
        *([] if set_size is None else [_of_sets(decoded, set_size)]),
    ]


def _of_rejected(decoded: Sequence[Prediction], reject: float) -> str:
    count = sum(one.rejected is True for one in decoded)
    return (
        f"{count:,} of {len(decoded):,} photos are {NONE_OF_THESE} (novelty below {reject:g}); of photos of "
        f"the classes, about {_percent(reject)} are rejected as well"
    )


def _of_sets(decoded: Sequence[Prediction], set_size: float) -> str:
    sizes = [len(one.set or ()) for one in decoded if not one.rejected]
    counts = {
        "one class": sizes.count(1),
        "several classes, between which the model does not decide at this level": sum(n > 1 for n in sizes),
        "no class, since none is as probable as the true ones usually are": sizes.count(0),
    }
    listed = "; ".join(f"{count:,} with {what}" for what, count in counts.items() if count)
    return f"Sets that hold the true class of {_percent(1 - set_size)} of photos: {listed or 'none'}"


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"
