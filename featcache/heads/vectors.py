"""Make vectors of spatial features: flatten them, or pool over height and width."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

POOLINGS = ("flatten", "avg", "max")


def pool(features: NDArray[Any], pooling: str) -> NDArray[Any]:
    """Turn (n, h, w, c) features into vectors; 2-D features are returned as they are.

    Parameters
    ----------
    features : array of shape (n, h, w, c) or (n, c), floating
    pooling : {"flatten", "avg", "max"}

    Returns
    -------
    array of shape (n, h * w * c) for "flatten" (a view where possible), else (n, c)
        float16 comes back as float32 where numbers are summed ("avg").
    """
    if features.ndim == 2:
        return features
    if pooling == "flatten":
        return features.reshape(len(features), -1)
    if pooling == "max":
        return np.asarray(features.max(axis=(1, 2)))
    wide = np.result_type(features.dtype, np.float32)
    return np.asarray(features.mean(axis=(1, 2), dtype=wide))


def vectors_of(features: NDArray[Any], pooling: str) -> NDArray[Any]:
    """Return features (n, h, w, c) or (n, c) as rows that lie one after another, float16 or float32."""
    vectors = pool(features, pooling)
    dtype = np.float16 if vectors.dtype == np.float16 else np.float32
    return np.ascontiguousarray(vectors, dtype=dtype)


def unit_rows(vectors: NDArray[Any]) -> NDArray[Any]:
    """Divide every row of vectors (n, d) by its length; rows of zeros stay. float16 becomes float32."""
    wide = vectors.astype(np.result_type(vectors.dtype, np.float32), copy=False)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    rows: NDArray[Any] = wide / np.where(lengths == 0, 1, lengths)
    return rows
