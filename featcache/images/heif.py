"""HEIC and HEIF photos, read by pillow-heif (extra ``featcache[heic]``), imported for the first one."""

from __future__ import annotations

import io

from PIL import Image

from featcache.errors import ImageError

HEIF_BRANDS = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
)


def open_heif(data: bytes) -> Image.Image:
    """Open a HEIC photo.

    Pillow's registry of formats is left as it is: it belongs to the user's process.

    Raises
    ------
    ImageError
        pillow-heif is not installed.
    Exception
        The file is damaged.
    """
    try:
        from pillow_heif.as_plugin import HeifImageFile
    except ImportError:
        raise ImageError(
            "a HEIC photo; run `pip install 'featcache[heic]'` to read it, or save it as JPEG"
        ) from None
    image: Image.Image = HeifImageFile(io.BytesIO(data), "")
    return image
