"""Labels in files: a list of JSON values and a NumPy dtype, which says how many bytes each one gets."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_LARGEST_NUMBER = 32  # bytes, of complex long double
_BYTES_PER_CHARACTER = 4


def labels_to_json(labels: NDArray[Any]) -> dict[str, Any]:
    """Return labels as the two keys of a JSON object that `labels_from_json` reads."""
    return {"classes": labels.tolist(), "classes_dtype": labels.dtype.str}


def labels_from_json(facts: dict[str, Any]) -> NDArray[Any]:
    """Return the labels (k,) that a file lists.

    Raises
    ------
    KeyError, TypeError, ValueError
        They are not one list of at least two different labels, or the dtype is much wider than they are.
    """
    values, dtype = facts["classes"], np.dtype(facts["classes_dtype"])
    longest = max((len(value) for value in values if isinstance(value, str)), default=0)
    if dtype.itemsize > max(_LARGEST_NUMBER, _BYTES_PER_CHARACTER * longest):
        raise ValueError(f"the dtype {dtype.str} is wider than the labels, of at most {longest} characters")
    labels = np.array(values, dtype)
    if labels.ndim != 1 or len(labels) < 2 or len(np.unique(labels)) != len(labels):
        raise ValueError("the labels are not a list of two or more different ones")
    return labels
