"""Augmented views of a photo: deterministic, from the photo's bytes and the view's number."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageEnhance

from featcache.recipe import AugmentSettings
from featcache.versions import AUGMENTATION

ASPECT = 4 / 3
"""Largest change of the aspect ratio by a crop, as in torchvision's RandomResizedCrop."""


@dataclass(frozen=True, slots=True)
class View:
    """One of a photo's augmented views.

    Attributes
    ----------
    settings : AugmentSettings
    number : int
        From 1; view 0 is the plain photo, which is no `View`.
    """

    settings: AugmentSettings
    number: int

    @property
    def key(self) -> int:
        """Identifier of the view in the store: 63 bits of a hash of settings, number and `AUGMENTATION`.

        It does not depend on the number of views, so views can be added later.
        """
        return _key(self.settings, self.number)


@cache
def _key(settings: AugmentSettings, number: int) -> int:
    facts = settings.model_dump(mode="json", exclude={"views"}) | {"version": AUGMENTATION, "view": number}
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def views_of(settings: AugmentSettings | None) -> list[View | None]:
    """Return all views of a training photo; the first is None, the plain photo."""
    if settings is None:
        return [None]
    return [None, *(View(settings, number) for number in range(1, settings.views))]


@dataclass(frozen=True, slots=True)
class Drawn:
    """How one view of one photo differs from the photo.

    Attributes
    ----------
    left, top, width, height : float
        The crop, as fractions of the photo's width and height.
    flip : bool
    turn : float
        Counterclockwise, as a fraction of a full turn.
    brightness, contrast : float
        Factors.
    """

    left: float
    top: float
    width: float
    height: float
    flip: bool
    turn: float
    brightness: float
    contrast: float


def draw(digest: bytes, view: View) -> Drawn:
    """Draw the parameters of a view of the photo with this digest.

    All draws are uniform; the crop's aspect ratio is log-uniform. They come from a hash, not from a random
    generator, whose numbers may change between versions of its library. Transforms that are off still
    consume their draw, so that settings can be compared with the same draws for the other transforms.
    """
    settings = view.settings
    area, aspect, x, y, flip, turn, brightness, contrast = _uniforms(digest, view.number)
    share = _between(*settings.crop, area)
    # no wider or higher than the photo, so that the area is exactly what was drawn
    widest = math.log(min(ASPECT, 1 / share))
    ratio = math.exp(_between(-widest, widest, aspect))
    width, height = min(1.0, math.sqrt(share * ratio)), min(1.0, math.sqrt(share / ratio))
    return Drawn(
        left=x * (1 - width),
        top=y * (1 - height),
        width=width,
        height=height,
        flip=settings.flip and flip < 0.5,
        turn=_between(-settings.rotation, settings.rotation, turn),
        brightness=_between(1 - settings.brightness, 1 + settings.brightness, brightness),
        contrast=_between(1 - settings.contrast, 1 + settings.contrast, contrast),
    )


def _uniforms(digest: bytes, number: int) -> list[float]:
    """Return eight numbers in [0, 1): the eight words of a hash."""
    words = hashlib.sha512(digest + number.to_bytes(8, "big")).digest()
    # the upper 53 bits of a word are what a float holds exactly
    return [(int.from_bytes(words[at : at + 8], "big") >> 11) / 2**53 for at in range(0, 64, 8)]


def _between(low: float, high: float, share: float) -> float:
    return low + (high - low) * share


def least_side(settings: AugmentSettings) -> float:
    """Return the smallest fraction of a photo's width or height that a crop can have."""
    smallest = settings.crop[0]
    return max(smallest, math.sqrt(smallest / ASPECT))


def cropped(image: Image.Image, drawn: Drawn) -> Image.Image:
    """Crop a photo to a view, in whole pixels."""
    if drawn.width == drawn.height == 1.0:
        return image
    width, height = max(1, round(drawn.width * image.width)), max(1, round(drawn.height * image.height))
    left, top = round(drawn.left * image.width), round(drawn.top * image.height)
    left, top = min(left, image.width - width), min(top, image.height - height)
    return cut(image, (left, top, left + width, top + height))


def cut(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """Cut a box (left, top, right, bottom) out of an image.

    ``Image.crop`` does the same, and refuses large ones by a limit that belongs to the user's process.
    """
    left, top, right, bottom = box
    return image.resize((right - left, bottom - top), Image.Resampling.NEAREST, box=box)


def varied(image: Image.Image, drawn: Drawn) -> Image.Image:
    """Flip and rotate a photo of its final size, and change its brightness and contrast."""
    if drawn.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if drawn.turn:
        image = _turned(image, drawn.turn)
    if drawn.brightness != 1.0:
        image = ImageEnhance.Brightness(image).enhance(drawn.brightness)
    if drawn.contrast != 1.0:
        image = ImageEnhance.Contrast(image).enhance(drawn.contrast)
    return image


def _turned(image: Image.Image, turn: float) -> Image.Image:
    """Rotate around the centre; the corners are filled by reflection, as in Keras."""
    width, height = image.size
    beyond = math.ceil((math.hypot(width, height) - min(width, height)) / 2) + 1
    reflected = np.pad(np.asarray(image), ((beyond, beyond), (beyond, beyond), (0, 0)), "symmetric")
    large = Image.fromarray(reflected).rotate(360 * turn, Image.Resampling.BILINEAR)
    return large.crop((beyond, beyond, beyond + width, beyond + height))
