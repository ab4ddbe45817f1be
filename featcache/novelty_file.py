"""``novelty.npz``: what a model keeps of photos that it was not fitted on, as plain arrays."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featcache.archives import DAMAGE, read_arrays
from featcache.errors import FormatError, ModelError
from featcache.evaluation.conformal import ConformalSets
from featcache.evaluation.novelty import Novelty
from featcache.store.format import check_format

NOVELTY_FILE = "novelty.npz"
FORMAT = 1

_CONFORMAL = "conformal"


def novelty_bytes(novelty: Novelty | None, conformal: ConformalSets | None) -> bytes:
    """Return the content of the file; what is None is left out."""
    arrays: dict[str, NDArray[np.generic]] = {"format": np.array(FORMAT)}
    if novelty is not None:
        arrays |= novelty.to_arrays()
    if conformal is not None:
        arrays[_CONFORMAL] = conformal.scores
    data = io.BytesIO()
    np.savez(data, allow_pickle=False, **arrays)
    return data.getvalue()


def read_novelty(
    data: bytes, path: Path, classes: int, channels: int, advice: str
) -> tuple[Novelty | None, ConformalSets | None]:
    """Return what `novelty_bytes` was given.

    Parameters
    ----------
    data : bytes
    path : Path
        For messages.
    classes : int
        Number of the model's classes.
    channels : int
        Length of its features.
    advice : str
        What to do about damage.

    Raises
    ------
    ModelError
        It is damaged, or not of this model.
    FormatError
        A newer version wrote it.
    """
    try:
        arrays = read_arrays(data)
        check_format(arrays.pop("format").item(), FORMAT, str(path))
        scores = arrays.pop(_CONFORMAL, None)
        conformal = None if scores is None else ConformalSets.from_scores(scores)
        return Novelty.from_arrays(arrays, classes, channels) if arrays else None, conformal
    except FormatError:
        raise
    except DAMAGE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise ModelError(f"{path} is damaged: {reason}; {advice}") from None
