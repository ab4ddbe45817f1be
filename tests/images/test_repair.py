"""Files that libraries take for damaged and that hold all their pixels."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin
from small_photos import encode, png_chunk, quarters

from featcache.errors import ImageError
from featcache.images.decode import decode
from featcache.images.scans import has_all_scans


def noisy(side: int) -> Image.Image:
    noise = np.random.default_rng(side).normal((200, 60, 60), 30, (side, side, 3))
    return Image.fromarray(noise.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("missing", [1, 2])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(("side", "quality"), [(64, 50), (320, 95), (1000, 75)])
def test_a_jpeg_that_lacks_only_its_end_is_decoded(side, quality, progressive, missing):
    data = encode(noisy(side), "JPEG", quality=quality, progressive=progressive)
    np.testing.assert_array_equal(decode(data[:-missing], (64, 64)), decode(data, (64, 64)))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
def test_a_jpeg_that_lacks_pixels_is_truncated(share, progressive):
    data = encode(noisy(320), "JPEG", quality=90, progressive=progressive)
    with pytest.raises(ImageError, match=r"^truncated: "):
        decode(data[: int(share * len(data))], (320, 320))


def test_a_progressive_jpeg_without_its_last_scan_is_truncated():
    data = encode(noisy(64), "JPEG", quality=90, progressive=True)
    assert has_all_scans(data)
    shorter = data[: data.rindex(b"\xff\xda")]
    assert not has_all_scans(shorter)
    with pytest.raises(ImageError, match=r"^truncated: "):
        decode(shorter, (64, 64))


def test_pillows_own_switch_is_left_alone():
    decode(encode(noisy(64), "JPEG")[:-2], (64, 64))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    assert PngImagePlugin.MAX_TEXT_CHUNK == ImageFile.SAFEBLOCK


def text_chunk(name: bytes, size: int) -> bytes:
    head = {b"zTXt": b"Comment\0\0", b"iTXt": b"Comment\0\1\0\0\0", b"iCCP": b"icc\0\0"}[name]
    return png_chunk(name, head + zlib.compress(b"x" * size))


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"iCCP"])
@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_png_with_a_large_text_or_profile_is_decoded(name, at_the_end):
    data = encode(quarters(), "PNG")
    place = len(data) - 12 if at_the_end else 33
    padded = data[:place] + text_chunk(name, 2 << 20) + data[place:]
    np.testing.assert_array_equal(decode(padded, (32, 48)), np.asarray(quarters()))


def test_many_texts_are_no_reason_either():
    data = encode(quarters(), "PNG")
    texts = text_chunk(b"zTXt", (1 << 20) - 10) * 70
    np.testing.assert_array_equal(decode(data[:33] + texts + data[33:], (32, 48)), np.asarray(quarters()))


def test_a_png_whose_pixels_are_damaged_stays_so():
    data = bytearray(encode(noisy(64), "PNG"))
    data[len(data) // 2] ^= 255
    large = bytes(data[:33]) + text_chunk(b"zTXt", 2 << 20) + bytes(data[33:])
    with pytest.raises(ImageError, match=r"damaged|truncated"):
        decode(large, (32, 48))
    with pytest.raises(ImageError, match="truncated"):
        decode(large[: len(large) // 2], (32, 48))


def test_a_chunk_that_claims_to_be_larger_than_the_file_is_no_trap():
    data = encode(quarters(), "PNG")
    claims = struct.pack(">I", 0x7FFFFFFF) + b"zTXt" + b"x"
    with pytest.raises(ImageError):
        decode(data[:33] + text_chunk(b"zTXt", 2 << 20) + claims, (32, 48))
