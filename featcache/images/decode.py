"""Decodes the bytes of one photo to pixels; the only decoder in the package."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featcache.errors import ImageError, did_you_mean
from featcache.images import limits, repair
from featcache.images.colour import bits_of, needs_both_bytes, to_rgb
from featcache.images.facts import FileFacts, file_facts, photo_facts
from featcache.images.formats import kind_of, open_image, silence_pillow
from featcache.images.geometry import FITS, INTERPOLATIONS, Fit, orientation, shrink, turn_upright
from featcache.images.private import allocate
from featcache.images.profiles import apply_profile
from featcache.images.reasons import reason_of
from featcache.images.views import View, cropped, draw, least_side, varied
from featcache.recipe import MAX_PIXELS, BaseSettings

# A change that gives any photo other pixels than before must raise `featcache.versions.DECODER`.

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Decoding:
    """How photos become pixels.

    Attributes
    ----------
    size : (int, int)
        Height and width of the result.
    resize : {"stretch", "crop", "pad"}
        How a different aspect ratio is handled: stretched, center-cropped, or padded with black.
    interpolation : {"nearest", "bilinear", "bicubic", "lanczos", "box"}
        Pillow's filter of that name; all but "nearest" average over the source when they make it smaller.
    range : "full", "minmax" or (float, float)
        Which values of photos with more than 8 bits per channel become 0 and 255: the smallest and largest
        possible ones, those of the photo itself, or the given ones. Photos of 8 bits stay as they are.
    color_profile : {"convert", "ignore"}
        Whether colours with an embedded ICC profile are converted to sRGB.
    max_pixels : int
        Photos that need more memory than one of so many pixels are refused.
    """

    size: tuple[int, int]
    resize: str = "stretch"
    interpolation: str = "bilinear"
    range: str | tuple[float, float] = "full"
    color_profile: str = "convert"
    max_pixels: int = MAX_PIXELS


def decoding_of(settings: BaseSettings) -> Decoding:
    """Return how a base's settings say that photos are decoded."""
    return Decoding(
        size=settings.image_size,
        resize=settings.resize,
        interpolation=settings.interpolation,
        range=settings.range,
        color_profile=settings.color_profile,
        max_pixels=settings.max_pixels,
    )


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded photo.

    Attributes
    ----------
    pixels : list of arrays of shape (height, width, 3), uint8
        RGB, one for each view.
    facts : ndarray of float32, shape (len(FACTS),), or None
        The photo's `featcache.images.facts.FACTS`; None where the plain photo is not among the views.
    """

    pixels: list[NDArray[np.uint8]]
    facts: NDArray[np.float32] | None


def decode(
    data: bytes,
    size: tuple[int, int],
    resize: str = "stretch",
    interpolation: str = "bilinear",
    **further: Any,
) -> NDArray[np.uint8]:
    """Decode one photo and resize it.

    The format is detected by content, not by name. The EXIF orientation is applied, transparency is
    composited over white (unless all of the photo is transparent), and only the first frame of an animation
    or page of a document is used.

    Parameters
    ----------
    data : bytes
        The file's content: JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF, JPEG 2000, PPM, PGM or PBM, and HEIC where
        pillow-heif is installed.
    size, resize, interpolation, **further
        Fields of `Decoding`.

    Returns
    -------
    array of shape (height, width, 3), uint8
        RGB.

    Raises
    ------
    ImageError
        The photo cannot be decoded; the message is the reason, without the file's name.
    ValueError
        `resize` or `interpolation` is unknown.
    """
    return decode_views(data, b"", [None], Decoding(size, resize, interpolation, **further)).pixels[0]


def decode_views(data: bytes, digest: bytes, views: Sequence[View | None], how: Decoding) -> Decoded:
    """Decode one photo and resize its views.

    A view's pixels do not depend on which other views are requested. The crop is taken at full resolution,
    then resized as `decode` does for a whole photo; the other transforms are applied after that, as by
    Keras's preprocessing layers.

    Parameters
    ----------
    data : bytes
    digest : bytes
        Of the data; it seeds the views.
    views : sequence of View or None
        None is the plain photo, as `decode` gives it.
    how : Decoding

    Raises
    ------
    ImageError, ValueError
        As `decode`.
    """
    fit = _choose("resize", how.resize, FITS)
    resample = _choose("interpolation", how.interpolation, INTERPOLATIONS)
    with _failures_in_words(data):
        photo = _EncodedPhoto(data, how, shrinks=resample != Image.Resampling.NEAREST)
        images = [photo.view(digest, view, fit, resample) for view in views]
        plain = images[views.index(None)] if None in views else None
        facts = None if plain is None else photo_facts(photo.facts, plain, how.resize == "pad")
        return Decoded([np.array(image, dtype=np.uint8) for image in images], facts)


def decode_image(image: Image.Image, how: Decoding) -> NDArray[np.uint8]:
    """Resize an image that Pillow holds already, as `decode` does with a file.

    `decode` reduces a JPEG file while it decodes it, and an image of Pillow's is not reduced: their pixels
    differ a little.

    Parameters
    ----------
    image : PIL.Image.Image
        Of any mode that `decode` takes; it is loaded and not changed.
    how : Decoding

    Returns
    -------
    array of shape (height, width, 3), uint8

    Raises
    ------
    ImageError, ValueError
        As `decode`.
    """
    fit = _choose("resize", how.resize, FITS)
    resample = _choose("interpolation", how.interpolation, INTERPOLATIONS)
    with _failures_in_words(b""):
        limits.check_memory(image, how.max_pixels)
        image.load()
        rgb, colours = to_rgb(image, "", b"", how.range, how.color_profile == "convert")
        small = fit(turn_upright(rgb, image), (how.size[1], how.size[0]), resample)
        if colours.profile is not None:
            small = apply_profile(small, colours.profile)
        return np.array(small, dtype=np.uint8)


def thumbnail(data: bytes, side: int) -> NDArray[np.uint8]:
    """Decode one photo for display: uncropped, in its own aspect ratio.

    Parameters
    ----------
    data : bytes
        As `decode` takes it.
    side : int
        Pixels of the longer side; smaller photos are not enlarged.

    Returns
    -------
    array of shape (height, width, 3), uint8
        RGB.

    Raises
    ------
    ImageError
        The photo cannot be decoded.
    """
    with _failures_in_words(data):
        photo = _EncodedPhoto(data, Decoding((side, side)), shrinks=True)
        return np.array(photo.view(b"", None, shrink, Image.Resampling.LANCZOS))


@contextlib.contextmanager
def _failures_in_words(data: bytes) -> Iterator[None]:
    silence_pillow()
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        # Pillow's plugins raise any exception on broken files: OSError, SyntaxError, ValueError, IndexError,
        # struct.error, zlib.error, MemoryError and more.
        raise ImageError(reason_of(error, data)) from error


def _choose(what: str, name: str, known: Mapping[str, _T]) -> _T:
    if name not in known:
        raise ValueError(f"{what} {name!r} is none of {', '.join(known)}.{did_you_mean(name, known)}")
    return known[name]


class _EncodedPhoto:
    """The bytes of one photo; decoded once for each size that the JPEG decoder is asked for."""

    def __init__(self, data: bytes, how: Decoding, shrinks: bool) -> None:
        self._data, self._how, self._shrinks = data, how, shrinks
        self._kind = kind_of(data)
        self._decoded: dict[tuple[bytes, tuple[int, int]], Image.Image] = {}
        self._profile: bytes | None = None  # to be applied
        self._own_profile: bytes | None = None  # that Pillow does not read
        self._facts: FileFacts | None = None

    def view(self, digest: bytes, view: View | None, fit: Fit, resample: Image.Resampling) -> Image.Image:
        height, width = self._how.size
        if view is None:
            return self._in_srgb(fit(self._upright((width, height)), (width, height), resample))
        drawn, share = draw(digest, view), least_side(view.settings)
        whole = self._upright((math.ceil(width / share), math.ceil(height / share)))
        return varied(self._in_srgb(fit(cropped(whole, drawn), (width, height), resample)), drawn)

    @property
    def facts(self) -> FileFacts:
        """What is known of the file once it has been decoded."""
        assert self._facts is not None
        return self._facts

    def _in_srgb(self, image: Image.Image) -> Image.Image:
        # after resizing, since it takes time for each pixel
        return image if self._profile is None else apply_profile(image, self._profile)

    def _upright(self, size: tuple[int, int]) -> Image.Image:
        """Return the photo as RGB, not smaller than `size` (width, height) unless it is so itself."""
        try:
            return self._load(self._data, size)
        except (OSError, ValueError):
            sound = repair.sound_copy(self._kind, self._data, lambda data: self._load(data, size))
            if sound is None:
                raise
            self._own_profile = repair.profile_of_png(self._data) if self._kind == "PNG" else None
            self._data = sound
            self._decoded.clear()
            return self._load(sound, size)

    def _load(self, data: bytes, size: tuple[int, int]) -> Image.Image:
        limits.check_header(self._kind, data, self._how.max_pixels)
        with open_image(self._kind, data) as image:
            limits.check_jpeg(image, data, self._how.max_pixels)
            full = image.size
            if self._shrinks:
                _shrink_while_decoding(image, size)
            bits = bits_of(image, self._kind, data)
            limits.check_memory(image, self._how.max_pixels, needs_both_bytes(image, bits, self._how.range))
            key = data, image.size
            if key not in self._decoded:
                allocate(image)
                image.load()
                if self._own_profile is not None:
                    image.info["icc_profile"] = self._own_profile
                self._decoded[key] = self._finish(image, data, full)
            return self._decoded[key]

    def _finish(self, image: Image.Image, data: bytes, full: tuple[int, int]) -> Image.Image:
        """Return a loaded photo upright in RGB, and keep what is to be known of it."""
        convert = self._how.color_profile == "convert"
        rgb, colours = to_rgb(image, self._kind, data, self._how.range, convert)
        upright = turn_upright(rgb, image)
        if (upright.width > upright.height) != (full[0] > full[1]):
            full = full[1], full[0]
        self._profile = colours.profile
        self._facts = file_facts(image, self._kind, data, full, colours)
        return upright


def _shrink_while_decoding(image: Image.Image, size: tuple[int, int]) -> None:
    """Let the JPEG decoder reduce to 1/2, 1/4 or 1/8, about twice as fast; never below `size`."""
    if image.format != "JPEG":
        return  # only JPEG can; and Pillow's Exif reader decodes a PNG
    width, height = size
    lies_on_its_side = orientation(image) in (5, 6, 7, 8)
    image.draft(None, (height, width) if lies_on_its_side else (width, height))
