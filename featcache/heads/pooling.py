"""The first step of scikit-learn heads: checked features in, vectors out."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_array, validate_data

from featcache.heads.private import StrOptions
from featcache.heads.vectors import pool


class Pool(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """The first step of every scikit-learn head: checked features in, vectors out.

    It learns nothing. It refuses NaN, because a feature file whose shard is missing reads as NaN and
    some classifiers (trees) would take that for a value.

    Parameters
    ----------
    pooling : {"flatten", "avg", "max"}, default "flatten"
        What becomes of features of shape (n, h, w, c); (n, c) passes through.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "pooling": [StrOptions({"flatten", "avg", "max"})]
    }

    def __init__(self, pooling: str = "flatten") -> None:
        self.pooling = pooling

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the setting and the features; nothing is learned."""
        self._validate_params()
        self._checked(X, reset=True)
        return self

    def transform(self, X: Any) -> NDArray[Any]:
        """Return `X` as vectors of shape (n, d), float32 or float64.

        Raises
        ------
        ValueError
            `X` is neither 2-D nor 4-D, or holds NaN or infinity.
        """
        vectors = pool(self._checked(X, reset=False), self.pooling)
        return vectors.astype(np.float32) if vectors.dtype == np.float16 else vectors

    def _checked(self, X: Any, *, reset: bool) -> NDArray[Any]:
        if is_spatial(X):
            return check_spatial(X)
        checked: NDArray[Any] = validate_data(self, X, reset=reset, dtype=FLOATS)
        return checked

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags


FLOATS = [np.float32, np.float64, np.float16]
"""Kept as they are; everything else becomes the first of them."""


def is_spatial(X: Any) -> bool:
    """Say whether `X` is an array of more than two axes."""
    return getattr(X, "ndim", 2) > 2


def check_spatial(X: Any) -> NDArray[Any]:
    """Return `X` as a finite floating array of shape (n, h, w, c).

    Raises
    ------
    ValueError
        It has another number of axes, is empty, or holds NaN or infinity.
    """
    if X.ndim != 4:
        raise ValueError(f"Found array with dim {X.ndim}; features have shape (n, h, w, c) or (n, c).")
    checked: NDArray[Any] = check_array(X, dtype=FLOATS, allow_nd=True, input_name="X")
    if 0 in checked.shape:
        raise ValueError(f"Found array of shape {checked.shape}: it holds no features.")
    return checked
