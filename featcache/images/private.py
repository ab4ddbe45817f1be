"""Names of Pillow that are not public; tested with Pillow 13.0."""

from __future__ import annotations

from PIL import Image, TiffImagePlugin


def allocate(image: Image.Image) -> None:
    """Allocate the pixels of a TIFF before it is loaded.

    Its plugin would do the same, after a comparison with ``Image.MAX_IMAGE_PIXELS``, which belongs to the
    user's process: featcache has compared with its own limit by then.
    """
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        image.im = Image.core.new(image.mode, image._tile_size)  # type: ignore[attr-defined]
