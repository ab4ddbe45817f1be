"""Photos that are in memory already: bytes, file objects, Pillow images and arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featcache.errors import ImageError
from featcache.images.decode import Decoding, decode_image, decode_views
from featcache.images.source import MOST_BYTES

_CHANNELS = (1, 3, 4)
ARRAYS = "uint8 from 0 to 255, of shape (height, width) or (height, width, channels) with 1, 3 or 4 channels"


def is_array(thing: Any) -> bool:
    """Whether it is an array of numbers: NumPy's, a memory map, an h5py dataset; of paths it is none."""
    kind = getattr(getattr(thing, "dtype", None), "kind", None)
    return hasattr(thing, "shape") and kind in {"b", "i", "u", "f", "c"}


def is_in_memory(thing: Any) -> bool:
    """Whether it is one photo, or an array of some, rather than a path or several things."""
    kinds = bytes | bytearray | memoryview | Image.Image
    return isinstance(thing, kinds) or hasattr(thing, "read") or is_array(thing)


def content_of(thing: Any) -> Any:
    """Return what `decode_content` takes for a photo in memory; a file object is read, from its beginning.

    Returns
    -------
    bytes-like, PIL.Image.Image, array or ImageError
        The error says why there is no content, also where `thing` is no photo; `decode_content` raises it.
    """
    if not is_in_memory(thing):
        return ImageError(
            f"{thing!r:.60} is no photo: give a path, bytes, a file object, a Pillow image or an array"
        )
    return _read(thing) if hasattr(thing, "read") else thing


def _read(file: Any) -> bytes | ImageError:
    try:
        if getattr(file, "seekable", bool)():
            file.seek(0)  # as Pillow does
        data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError, TypeError) as error:  # a ValueError: it is closed
        return ImageError(f"cannot be read: {error}")
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    if hasattr(data, "close"):
        data.close()  # a coroutine, which was never awaited
    return ImageError(
        f"reading it gives {type(data).__name__} and not bytes: open files with 'rb', and of an UploadFile "
        "give its attribute file"
    )


def decode_content(content: Any, how: Decoding) -> NDArray[np.uint8]:
    """Decode a photo in memory.

    Parameters
    ----------
    content : bytes-like, PIL.Image.Image, array or ImageError
        An array is one photo as `ARRAYS` says.
    how : Decoding

    Raises
    ------
    ImageError
        It cannot be decoded, is larger than `MOST_BYTES`, or is an array that is no photo.
    """
    if isinstance(content, ImageError):
        raise content
    if isinstance(content, Image.Image):
        return decode_image(content, how)
    if is_array(content):
        return decode_image(_image(content), how)
    count = memoryview(content).nbytes
    if count > MOST_BYTES:
        raise ImageError(f"it has {count:,} bytes; at most {MOST_BYTES:,} are read")
    return decode_views(bytes(content), b"", [None], how).pixels[0]


def _image(array: Any) -> Image.Image:
    if reason := why_no_photo(array.shape, array.dtype):
        raise ImageError(reason)
    pixels = np.ascontiguousarray(array)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)


def why_no_photo(shape: tuple[int, ...], dtype: Any) -> str | None:
    """Say why an array of this shape and dtype is not one photo; None where it is."""
    is_one = len(shape) == 2 or (len(shape) == 3 and shape[2] in _CHANNELS)
    if dtype == np.uint8 and 0 not in shape and is_one:
        return None
    scale = "; values from 0 to 1 become such with (255 * array).round().astype('uint8')"
    return (
        f"an array of shape {tuple(shape)} and dtype {dtype} is no photo; give {ARRAYS}"
        f"{scale if np.dtype(dtype).kind == 'f' else ''}"
    )


def fitted(rows: NDArray[np.uint8], how: Decoding) -> NDArray[np.uint8]:
    """Return photos (n, …) of one shape as pixels (n, height, width, 3); such pixels are not copied."""
    if rows.shape[1:] == (*how.size, 3):
        return np.ascontiguousarray(rows)
    return np.stack([decode_content(row, how) for row in rows])
