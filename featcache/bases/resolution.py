"""Which precision a base computes in on this machine, measured on photos, and what is remembered of that.

``precision = "auto"`` is exact unless bf16 is nearly so: bf16 is chosen only where the processor has it and
the features of this base agree with those in f32. How far they differ depends on the network: VGG16 0.6%,
EfficientNet-Lite0 3.7%, MobileNetV2 8.2%.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.bases.contract import Engine
from featcache.bases.spec import BaseSpec, allowed_precisions, short_name, stored_dtype
from featcache.recipe import BaseSettings

LIMIT = 0.01
"""Largest relative difference from f32 at which "auto" chooses bf16."""

SAMPLE = 64
"""How many photos the difference is measured on, at most."""

_FROM_SETTINGS = ("arguments", "pooling", "image_size", "resize", "interpolation", "range", "color_profile")


@dataclass(frozen=True)
class Resolution:
    """What the settings of a base resolve to on this machine.

    Attributes
    ----------
    spec : BaseSpec
    bf16_difference : float or None
        Of the features in bf16 from those in f32: the norm of the difference over the norm, over all photos
        of the sample. None where it was not measured.
    photos : int
        Size of the sample.
    """

    spec: BaseSpec
    bf16_difference: float | None = None
    photos: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the resolution as JSON-ready data."""
        return {
            "spec": self.spec.to_json(),
            "fingerprint": self.spec.fingerprint,
            "bf16_difference": self.bf16_difference,
            "photos": self.photos,
        }

    @classmethod
    def from_json(cls, entry: dict[str, Any], settings: BaseSettings) -> Resolution:
        """Make a resolution from what `to_json` gave, if it can be one of these settings on this machine.

        Raises
        ------
        ValueError, KeyError, TypeError
            It is damaged, or was resolved from other settings or on another kind of processor.
        """
        spec = BaseSpec.from_json(entry["spec"])
        expected = {key: getattr(settings, key) for key in _FROM_SETTINGS}
        if entry["fingerprint"] != spec.fingerprint or spec.name != short_name(settings):
            raise ValueError("the spec is not the one that was remembered")
        if any(getattr(spec, key) != value for key, value in expected.items()):
            raise ValueError("the spec is of other settings")
        if spec.precision not in allowed_precisions(settings):
            raise ValueError(f"precision {spec.precision} was not resolved on this machine")
        if spec.dtype != stored_dtype(settings, spec.precision):
            raise ValueError(f"dtype {spec.dtype} was not resolved from these settings")
        difference, photos = entry["bf16_difference"], entry["photos"]
        if not (difference is None or isinstance(difference, float)) or type(photos) is not int:
            raise ValueError("the measured difference is not a number")
        return cls(spec, difference, photos)

    @property
    def facts(self) -> dict[str, Any]:
        """The precision and how it was chosen, as JSON-ready data."""
        return {
            "precision": self.spec.precision,
            "dtype": self.spec.dtype,
            "bf16_difference": self.bf16_difference,
            "bf16_photos": self.photos,
        }

    def sentence(self, asked: str) -> str | None:
        """Say what was measured and what follows; None where nothing was.

        Parameters
        ----------
        asked : {"auto", "f32", "bf16"}
            The precision of the settings.
        """
        if self.bf16_difference is None:
            return None
        found = f"bf16 features of {self.spec.name} differ by {self.bf16_difference:.2g} of their norm"
        found += f" from f32 on {self.photos} photos"
        if asked == "bf16":
            return f"{found}; --precision f32 is exact"
        limit = f"{'more' if self.spec.precision == 'f32' else 'not more'} than {LIMIT:g}"
        return f"{found}, {limit}: precision is {self.spec.precision}"


def relative_difference(engine: Engine, exact: Engine, pixels: NDArray[np.uint8], batch_size: int) -> float:
    """Return how far one engine's features are from another's: the norm of the difference over the norm.

    Parameters
    ----------
    engine, exact : Engine
    pixels : ndarray of uint8, shape (n, height, width, 3)
    batch_size : int
        Of both engines.
    """
    difference = norm = 0.0
    for start in range(0, len(pixels), batch_size):
        batch = pixels[start : start + batch_size]
        expected = exact(batch).astype(np.float64)
        difference += float(np.square(engine(batch) - expected).sum())
        norm += float(np.square(expected).sum())
    return float(np.sqrt(difference / norm)) if norm > 0 else float("inf") if difference > 0 else 0.0


def choose_precision(settings: BaseSettings, bf16_difference: float | None, convertible: bool) -> str:
    """Return the precision to compute in.

    Parameters
    ----------
    settings : BaseSettings
    bf16_difference : float or None
        None where it was not measured; "auto" is then f32.
    convertible : bool
        Whether OpenVINO runs the network; TensorFlow runs it in f32 only.
    """
    if not convertible:
        return "f32"
    if settings.precision != "auto":
        return settings.precision
    return "bf16" if bf16_difference is not None and bf16_difference <= LIMIT else "f32"
