"""Samples of any depth mean what the file says: WhiteIsZero, ranges, transparency."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from small_photos import deep_png, encode, png_chunk, raw_png, tiff

from featcache.errors import ImageError
from featcache.images.decode import decode

SIZE = (8, 8)
RAMP = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(SIZE)
TWELVE_BITS = RAMP >> 4


def grey(data: bytes, **how) -> np.ndarray:
    pixels = decode(data, SIZE, **how)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


@pytest.mark.parametrize("order", ["<", ">"])
def test_grey_of_16_bits_is_inverted_where_zero_is_white(order):
    expected = RAMP >> 8
    np.testing.assert_array_equal(grey(tiff(RAMP, 1, order)), expected)
    np.testing.assert_array_equal(grey(tiff(65535 - RAMP, 0, order)), expected)
    np.testing.assert_array_equal(grey(tiff((255 - expected).astype(np.uint8), 0, order)), expected)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", None])
def test_compressed_grey_of_16_bits_is_inverted_too(compression):
    data = encode(Image.fromarray(65535 - RAMP), "TIFF", compression=compression, tiffinfo={262: 0})
    np.testing.assert_array_equal(grey(data), RAMP >> 8)


def test_all_of_16_bits_is_the_full_range():
    np.testing.assert_array_equal(grey(deep_png(RAMP), range="full"), RAMP >> 8)
    assert grey(deep_png(TWELVE_BITS)).max() == 15


def deep_files(values: np.ndarray) -> dict[str, bytes]:
    colour = np.stack([values] * 3, axis=-1)
    full = np.full((*SIZE, 1), 65535, np.uint16)
    return {
        "png grey": deep_png(values),
        "png grey with alpha": deep_png(np.concatenate([values[..., None], full], -1)),
        "png rgb": deep_png(colour),
        "png rgba": deep_png(np.concatenate([colour, full], -1)),
        "tiff grey": tiff(values, 1),
        "tiff rgb": tiff(colour, 2),
        "tiff rgb of big endian": tiff(colour, 2, ">"),
        "tiff rgb and an unknown sample": tiff(np.concatenate([colour, full], -1), 2, t338=0),
        "tiff lzw": encode(Image.fromarray(values), "TIFF", compression="tiff_lzw"),
        "ppm grey": b"P5 8 8 65535\n" + values.astype(">u2").tobytes(),
        "ppm rgb": b"P6 8 8 65535\n" + colour.astype(">u2").tobytes(),
    }


@pytest.mark.parametrize("kind", deep_files(RAMP))
def test_a_range_scales_12_bits_in_16_to_8(kind):
    data, expected = deep_files(TWELVE_BITS)[kind], TWELVE_BITS * (255 / 4095)
    np.testing.assert_allclose(grey(data, range=(0.0, 4095.0)), expected, atol=0.51)
    np.testing.assert_allclose(grey(data, range="minmax"), expected, atol=0.51)
    clipped = ((TWELVE_BITS - 1000.0) * (255 / 1000)).clip(0, 255)
    np.testing.assert_allclose(grey(data, range=(1000.0, 2000.0)), clipped, atol=0.51)


def test_a_range_is_for_more_than_8_bits_only():
    image = Image.fromarray((TWELVE_BITS >> 6).astype(np.uint8))
    np.testing.assert_array_equal(grey(encode(image, "PNG"), range="minmax"), np.asarray(image))


def test_a_photo_of_one_value_has_no_range_and_is_black():
    assert (grey(deep_png(np.full(SIZE, 700, np.uint16)), range="minmax") == 0).all()


@pytest.mark.parametrize(("dtype", "what"), [(np.int16, "signed 16 bit"), (np.float32, "32 bit floating")])
def test_values_without_a_fixed_range_take_the_one_that_is_given(dtype, what):
    values = (np.linspace(-1000, 1000, 64).reshape(SIZE)).astype(dtype)
    with pytest.raises(ImageError, match=rf"{what}.*base\.range"):
        decode(tiff(values, 1), SIZE)
    expected = (values.astype(float) + 1000) * (255 / 2000)
    np.testing.assert_allclose(grey(tiff(values, 1), range=(-1000.0, 1000.0)), expected, atol=0.51)
    np.testing.assert_allclose(grey(tiff(values, 1), range="minmax"), expected, atol=0.51)


def test_values_that_are_not_finite_do_not_cost_the_others():
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(SIZE).copy()
    values[0, 0], values[0, 1] = np.nan, np.inf
    pixels = grey(tiff(values, 1), range="minmax")
    assert (pixels[0, 0], pixels[0, 1], pixels[7, 7]) == (0, 255, 255)


@pytest.mark.parametrize("largest", [1, 100, 255, 4095, 65535])
@pytest.mark.parametrize("magic", [b"P5", b"P6"])
def test_the_largest_value_of_a_ppm_is_white(magic, largest):
    values = np.linspace(0, largest, 64).round().reshape(SIZE)
    samples = np.stack([values] * 3, -1) if magic == b"P6" else values
    body = samples.astype(">u2" if largest > 255 else np.uint8).tobytes()
    pixels = grey(magic + b"\n# a comment\n8 8\n%d\n" % largest + body)
    np.testing.assert_allclose(pixels, values * (255 / largest), atol=1)


# ---- transparency ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_fourth_sample_that_is_not_declared_is_no_transparency(dtype):
    scale = np.iinfo(dtype).max // 255
    samples = np.full((*SIZE, 4), 100 * scale, dtype)
    samples[:, :4, 3] = 0
    assert (decode(tiff(samples, 2), SIZE) == 100).all()
    assert (decode(tiff(samples, 2, t338=0), SIZE) == 100).all()
    declared = decode(tiff(samples, 2, t338=2), SIZE)
    assert (declared[:, :4] == 255).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("format_", ["PNG", "WEBP", "TIFF"])
def test_transparency_of_all_of_the_photo_is_ignored(mode, format_):
    image = Image.new("RGB", SIZE, (90, 90, 90)).convert(mode)
    image.putalpha(0)
    options = {"lossless": True, "exact": True} if format_ == "WEBP" else {}
    assert (decode(encode(image, format_, **options), SIZE) == 90).all()
    image.putpixel((0, 0), (90, 255) if mode == "LA" else (90, 90, 90, 255))
    seen = decode(encode(image, format_, **options), SIZE)
    assert (seen[0, 0] == 90).all()
    assert (seen[1:] == 255).all()


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_transparent_grey_of_a_png_is_compared_at_its_depth(bits):
    """The left half is the transparent grey, the right one is another."""
    largest = (1 << bits) - 1
    transparent, other = largest - largest // 3, 0
    values = [transparent] * 4 + [other] * 4
    row = int("".join(f"{value:0{bits}b}" for value in values), 2).to_bytes(bits, "big")
    data = raw_png(8, 8, bits, 0, (b"\0" + row) * 8, png_chunk(b"tRNS", transparent.to_bytes(2, "big")))
    pixels = grey(data)
    assert (pixels[:, :4] == 255).all()
    assert (pixels[:, 4:] == 0).all()


def test_the_transparent_colour_of_a_png_is_compared_at_16_bits():
    values = np.full((*SIZE, 3), 0x8000, np.uint16)
    values[:, :4] = 0x8001  # the same in 8 bits
    pixels = decode(deep_png(values, png_chunk(b"tRNS", b"\x80\x01" * 3)), SIZE)
    assert (pixels[:, :4] == 255).all()
    assert (pixels[:, 4:] == 0x80).all()
