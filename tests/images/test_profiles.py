"""Embedded colour profiles are converted to sRGB; those that are sRGB, or damaged, change nothing."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms
from small_photos import encode, png_chunk, quarters

from featcache.images import profiles
from featcache.images.decode import decode

WIDE = ((0.7977, 0.2880, 0), (0.1352, 0.7119, 0), (0.0313, 0.0001, 0.8249))  # ProPhoto
NARROW = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))  # sRGB


def profile(space: bytes = b"RGB ", primaries=WIDE, gamma: float = 1.8, name: bytes = b"test") -> bytes:
    """A matrix profile, or one of grey, of ICC version 2."""

    def number(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(values) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(map(number, values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    text = name + b"\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78)
    description += bytes(-len(description) % 4)
    tags = [
        (b"desc", description),
        (b"cprt", b"text\0\0\0\0none\0\0\0\0"),
        (b"wtpt", xyz((0.9642, 1, 0.8249))),
    ]
    if space == b"GRAY":
        tags += [(b"kTRC", curve)]
    else:
        tags += [
            (letter + b"XYZ", xyz(values))
            for letter, values in zip((b"r", b"g", b"b"), primaries, strict=True)
        ]
        tags += [(letter + b"TRC", curve) for letter in (b"r", b"g", b"b")]
    at, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for tag, data in tags:
        table, body = table + tag + struct.pack(">II", at + len(body), len(data)), body + data
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"none", 0x02100000, b"mntr", space, b"XYZ ")
    head += (
        struct.pack(">6H", 2020, 1, 1, 0, 0, 0)
        + b"acsp"
        + bytes(28)
        + b"".join(map(number, (0.9642, 1, 0.8249)))
    )
    return head.ljust(128, b"\0") + table + body


def converted(image: Image.Image, icc: bytes) -> np.ndarray:
    source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    found = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    return np.asarray(found)


MUTED = Image.fromarray(np.asarray(quarters()) // 2 + 60)


@pytest.mark.parametrize("format_", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_colours_of_a_wide_profile_are_converted(format_):
    options = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
    data = encode(MUTED, format_, icc_profile=profile(), **options[format_])
    pixels, expected = decode(data, (32, 48)), converted(MUTED, profile())
    assert np.abs(expected.astype(int) - np.asarray(MUTED)).max() > 20
    np.testing.assert_allclose(pixels, expected, atol=6 if format_ == "JPEG" else 0)
    np.testing.assert_allclose(
        decode(data, (32, 48), color_profile="ignore"), MUTED, atol=6 if format_ == "JPEG" else 0
    )


def test_grey_with_a_profile_is_converted():
    image, icc = MUTED.convert("L"), profile(b"GRAY", gamma=1.0)
    pixels = decode(encode(image, "PNG", icc_profile=icc), (32, 48))
    np.testing.assert_array_equal(pixels, converted(image, icc))
    assert (pixels[..., 0] > np.asarray(image)).mean() > 0.9


def test_srgb_is_known_by_its_colours_and_not_by_its_name():
    known = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert profiles.apply_profile(MUTED, known) is MUTED
    changed = profiles.apply_profile(MUTED, profile(name=b"sRGB IEC61966-2.1"))
    assert not np.array_equal(np.asarray(changed), np.asarray(MUTED))
    near = profile(primaries=NARROW, gamma=2.2, name=b"camera")  # as many phones write it
    assert np.abs(np.asarray(profiles.apply_profile(MUTED, near)).astype(int) - np.asarray(MUTED)).max() <= 4


@pytest.mark.parametrize(
    "icc",
    [
        b"",
        b"no profile",
        profile()[:200],
        profile()[:-30],
        b"\0" * 5000,
        profile(b"CMYK"),
        profile(b"GRAY")[:140],
    ],
)
def test_a_broken_profile_does_not_cost_the_photo(icc):
    data = encode(MUTED, "PNG", icc_profile=icc)
    np.testing.assert_array_equal(decode(data, (32, 48)), np.asarray(MUTED))


def test_a_profile_of_another_colour_space_changes_nothing():
    cmyk = MUTED.convert("CMYK")
    data = encode(cmyk, "TIFF", icc_profile=profile())
    np.testing.assert_array_equal(decode(data, (32, 48)), np.asarray(cmyk.convert("RGB")))


def test_a_profile_that_pillow_finds_too_large_is_applied():
    large = profile() + bytes(2 << 20)
    data = encode(MUTED, "PNG")
    chunk = png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(large))
    pixels = decode(data[:33] + chunk + data[33:], (32, 48))
    np.testing.assert_array_equal(pixels, converted(MUTED, profile()))
