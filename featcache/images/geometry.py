"""Turns a decoded photo upright and fits it into a size."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from PIL import ExifTags, Image

Fit = Callable[[Image.Image, tuple[int, int], Image.Resampling], Image.Image]


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where there is none."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
        return int(value)
    except Exception:  # noqa: BLE001
        # A damaged Exif block raises anything at all, and the photo beside it is still good.
        return 1


def turn_upright(pixels: Image.Image, loaded: Image.Image) -> Image.Image:
    """Turn a photo as the file it was loaded from says.

    Asked after loading: Pillow turns TIFF by itself while loading and then forgets the orientation.
    """
    turn = _TURNS.get(orientation(loaded))
    return pixels if turn is None else pixels.transpose(turn)


def _stretch(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    return image.resize(size, resample)


def _crop(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    """Take the largest centred box of the wanted aspect; its edges may lie between pixels."""
    scale = min(image.width / size[0], image.height / size[1])
    left = max(0.0, (image.width - size[0] * scale) / 2)
    top = max(0.0, (image.height - size[1] * scale) / 2)
    return image.resize(size, resample, box=(left, top, image.width - left, image.height - top))


def _pad(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    scale = min(size[0] / image.width, size[1] / image.height)
    inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    canvas = Image.new("RGB", size)
    canvas.paste(image.resize(inner, resample), ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
    return canvas


def shrink(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    """Keep the aspect inside of the size, and what is smaller as it is."""
    scale = min(size[0] / image.width, size[1] / image.height, 1.0)
    inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(inner, resample)


FITS: Mapping[str, Fit] = {"stretch": _stretch, "crop": _crop, "pad": _pad}

INTERPOLATIONS: Mapping[str, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}

_TURNS: Mapping[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
