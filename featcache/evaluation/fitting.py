"""What a classifier's ``fit`` takes beside features and labels."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray


def fit_arguments(
    head: Any, weights: NDArray[Any] | None, groups: NDArray[Any] | None = None
) -> dict[str, Any]:
    """Return the keyword arguments that give a head's ``fit`` sample weights and groups.

    Every step of a pipeline gets those that it takes: with weights also the scaling, so that a photo of
    weight 2 counts as two photos throughout. Principal components take none.

    Parameters
    ----------
    head : classifier or pipeline
    weights, groups : array of shape (n,), or None
        None is not passed on.
    """
    if not hasattr(head, "steps"):
        return arguments_of(head.fit, weights, groups)
    return {
        f"{name}__{key}": value
        for name, step in head.steps
        for key, value in arguments_of(step.fit, weights, groups).items()
    }


def arguments_of(
    method: Callable[..., Any], weights: NDArray[Any] | None, groups: NDArray[Any] | None
) -> dict[str, Any]:
    """Return those of ``sample_weight`` and ``groups`` that are given and that the method takes by name."""
    taken = inspect.signature(method).parameters
    given = {"sample_weight": weights, "groups": groups}
    return {name: value for name, value in given.items() if value is not None and name in taken}


def takes_weights(head: Any) -> bool:
    """Whether a classifier, of a pipeline the last step, can be trained with sample weights."""
    last = head.steps[-1][1] if hasattr(head, "steps") else head
    return "sample_weight" in inspect.signature(last.fit).parameters
