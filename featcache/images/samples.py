"""Writes small sets of sample images for trying the package."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featcache.errors import DataError, did_you_mean

Sample = Callable[[], Iterator[tuple[str, NDArray[np.uint8]]]]


def write_sample(name: str, folder: Path) -> int:
    """Write a set of sample images as class folders, whole or not at all.

    Parameters
    ----------
    name : str
        One of `SAMPLES`.
    folder : Path
        Output folder; it must be empty or not exist.

    Returns
    -------
    int
        Number of images written.

    Raises
    ------
    DataError
        The name is unknown, the folder is not empty, or it cannot be written.
    """
    if name not in SAMPLES:
        raise DataError(
            f"no sample is named {name!r}; there is {', '.join(SAMPLES)}.{did_you_mean(name, SAMPLES)}"
        )
    try:
        return _write_whole(SAMPLES[name], folder.resolve())
    except OSError as error:
        raise DataError(
            f"the sample cannot be written to {folder}: {error.strerror}; choose another folder"
        ) from None


def _write_whole(sample: Sample, folder: Path) -> int:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(
            f"{folder} is there already and is no empty folder; choose another, or remove it first"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Not in the system's temporary folder: a rename works only within one file system.
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as aside:
        whole = Path(aside) / folder.name
        written = _write_images(sample, whole)
        if folder.exists():
            folder.rmdir()  # it is empty; Windows does not rename onto a folder
        whole.rename(folder)
    return written


def _write_images(sample: Sample, folder: Path) -> int:
    written = 0
    for path, pixels in sample():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
        written += 1
    return written


def _digits() -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield scikit-learn's 1,797 handwritten digits, enlarged to 32×32."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (grey, label) in enumerate(zip(digits.images, digits.target, strict=True), start=1):
        pixels = np.round(grey * (255 / 16)).astype(np.uint8)
        yield f"{label}/digit-{number:04d}.png", pixels.repeat(4, axis=0).repeat(4, axis=1)


SAMPLES: Mapping[str, Sample] = {"digits": _digits}
