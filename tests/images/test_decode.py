"""The decoder: right colours and geometry for every format, and a clear reason for every broken file."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from small_photos import BLUE, GREEN, RED, WHITE, encode, png_chunk, quarters, raw_png

from featcache.errors import ImageError
from featcache.images.decode import FITS, INTERPOLATIONS, decode, thumbnail

GREY = (128, 128, 128)


def corners(pixels: np.ndarray) -> list[tuple[int, ...]]:
    """The colours in the middle of the four quarters, reading order."""
    height, width = pixels.shape[:2]
    rows, columns = (height // 4, 3 * height // 4), (width // 4, 3 * width // 4)
    return [tuple(int(v) for v in pixels[r, c]) for r in rows for c in columns]


def assert_close(found, wanted, tolerance: int = 12) -> None:
    assert np.abs(np.array(found, int) - np.array(wanted, int)).max() <= tolerance, (found, wanted)


@cache
def photos() -> dict[str, bytes]:
    """One small good photo of every kind, all showing the four quarters."""
    image = quarters()
    return {
        "jpeg": encode(image, "JPEG", quality=95, subsampling=0),
        "jpeg progressive": encode(image, "JPEG", quality=95, subsampling=0, progressive=True),
        "jpeg cmyk": encode(image.convert("CMYK"), "JPEG", quality=95),
        "mpo": encode(
            image, "MPO", save_all=True, append_images=[image.rotate(180)], quality=95, subsampling=0
        ),
        "png": encode(image, "PNG"),
        "png palette": encode(image.quantize(4), "PNG"),
        "png alpha": encode(image.convert("RGBA"), "PNG"),
        "png 16 bit": raw_png(48, 32, 16, 2, sixteen_bit_rows(image)),
        "gif": encode(image, "GIF", save_all=True, append_images=[image.rotate(180)]),
        "bmp": encode(image, "BMP"),
        "webp": encode(image, "WEBP", lossless=True),
        "webp lossy": encode(image, "WEBP", quality=95),
        "tiff": encode(image, "TIFF"),
        "tiff lzw": encode(image, "TIFF", compression="tiff_lzw"),
        "tiff deflate": encode(image, "TIFF", compression="tiff_adobe_deflate"),
        "tiff jpeg": encode(image, "TIFF", compression="jpeg", quality=95),
        "avif": encode(image, "AVIF", quality=100, subsampling="4:4:4"),
        "jpeg 2000": encode(image, "JPEG2000"),
        "jpeg 2000 codestream": encode(image, "JPEG2000", no_jp2=True),
        "ppm": encode(image, "PPM"),
    }


def sixteen_bit_rows(image: Image.Image) -> bytes:
    wide = (np.asarray(image).astype(">u2") * 257).astype(">u2")
    return b"".join(b"\0" + row.tobytes() for row in wide)


@pytest.mark.parametrize("kind", photos())
def test_every_format_gives_the_right_colours(kind):
    pixels = decode(photos()[kind], (32, 48))
    assert pixels.shape == (32, 48, 3)
    assert pixels.dtype == np.uint8
    # four-channel JPEG is subsampled, and lossy WebP always: saturated red and blue come back less clean
    assert_close(
        corners(pixels), [RED, GREEN, BLUE, WHITE], 30 if kind in ("webp lossy", "tiff jpeg") else 12
    )


def test_the_result_is_writable_and_its_own():
    pixels = decode(photos()["png"], (32, 48))
    pixels[:] = 0
    assert decode(photos()["png"], (32, 48)).max() == 255


@pytest.mark.parametrize("kind", ["bmp", "gif", "png", "webp"])
def test_lossless_formats_are_exact_at_their_own_size(kind):
    np.testing.assert_array_equal(decode(photos()[kind], (32, 48)), np.asarray(quarters()))


def test_sixteen_bit_grey_is_scaled_and_not_clipped():
    ramp = np.linspace(0, 65535, 64).astype(">u2").reshape(8, 8)
    rows = b"".join(b"\0" + row.tobytes() for row in ramp)
    pixels = decode(raw_png(8, 8, 16, 0, rows), (8, 8))
    np.testing.assert_array_equal(pixels[:, :, 0], ramp.astype(np.uint16) >> 8)
    assert (pixels[:, :, :1] == pixels).all()


def test_sixteen_bit_tiff_is_scaled_and_not_clipped():
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    np.testing.assert_array_equal(decode(encode(Image.fromarray(ramp), "TIFF"), (8, 8))[:, :, 1], ramp >> 8)


@pytest.mark.parametrize("bits", [8, 16])
def test_sixteen_bit_alpha_is_laid_over_white(bits):
    transparent_black = b"\0" * (bits // 2)
    opaque_grey = b"\x80" * (3 * bits // 8) + b"\xff" * (bits // 8)
    rows = (b"\0" + transparent_black * 4 + opaque_grey * 4) * 8
    pixels = decode(raw_png(8, 8, bits, 6, rows), (8, 8))
    assert (pixels[:, :4] == 255).all()
    assert (pixels[:, 4:] == 128).all()


@pytest.mark.parametrize(
    ("bits", "colour", "key"),
    [(8, 0, 0), (8, 0, 64), (16, 0, 0), (16, 0, 64), (8, 2, 0), (8, 2, 64), (16, 2, 0)],
)
def test_a_transparent_colour_is_laid_over_white(bits, colour, key):
    """PNG can name one colour as transparent; the left half has it, the right half not."""
    samples = 4 * (3 if colour == 2 else 1)
    row = b"\0" + key.to_bytes(bits // 8, "big") * samples + b"\x80" * (samples * bits // 8)
    transparent = key.to_bytes(2, "big") * (samples // 4)
    pixels = decode(raw_png(8, 8, bits, colour, row * 8, png_chunk(b"tRNS", transparent)), (8, 8))
    assert (pixels[:, :4] == 255).all()
    assert (pixels[:, 4:] == 128).all()


@pytest.mark.parametrize("colour", [0, 2])
def test_a_transparent_colour_above_a_byte_does_no_harm(colour):
    samples = 8 * (3 if colour == 2 else 1)
    row = b"\0" + b"\x80" * (2 * samples)
    data = raw_png(8, 8, 16, colour, row * 8, png_chunk(b"tRNS", b"\x70\x70" * (samples // 8)))
    assert (decode(data, (8, 8)) == 128).all()


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
@pytest.mark.parametrize("format_", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_greyscale_gives_three_equal_channels(mode, format_):
    if format_ == "JPEG" and mode == "LA":
        pytest.skip("JPEG has no alpha")
    image = Image.new("L", (16, 16), 255 if mode == "1" else 128).convert(mode)
    options = {"lossless": True} if format_ == "WEBP" else {}
    pixels = decode(encode(image, format_, **options), (8, 8))
    assert_close(pixels, np.full((8, 8, 3), 255 if mode == "1" else 128), 1)


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_laid_over_white(format_):
    image = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (8, 0, 16, 16))
    options = {"lossless": True, "exact": True} if format_ == "WEBP" else {}
    pixels = decode(encode(image, format_, **options), (16, 16))
    assert (pixels[:, :8] == WHITE).all()  # not the red that hides under full transparency
    assert (pixels[:, 8:] == BLUE).all()


@pytest.mark.parametrize("format_", ["PNG", "GIF"])
def test_palette_with_transparency_is_laid_over_white(format_):
    image = Image.new("P", (16, 16), 0)
    image.putpalette([0, 0, 0, 0, 0, 255])
    image.paste(1, (8, 0, 16, 16))
    pixels = decode(encode(image, format_, transparency=0), (16, 16))
    assert (pixels[:, :8] == WHITE).all()
    assert (pixels[:, 8:] == BLUE).all()


def test_half_transparent_is_mixed_with_white_before_resizing():
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 128))
    assert_close(decode(encode(image, "PNG"), (8, 8)), np.full((8, 8, 3), 127), 1)


# ---- orientation -----------------------------------------------------------------------------------------

# What has to be done to the upright photo so that a camera that was held that way would store it.
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}


def with_orientation(orientation: int, format_: str, scale: int = 1) -> bytes:
    upright = np.asarray(quarters(32 * scale, 48 * scale))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    options = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}
    return encode(stored, format_, exif=exif, **options[format_])


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", STORED)
def test_orientation_is_applied_once(orientation, format_):
    pixels = decode(with_orientation(orientation, format_), (32, 48))
    assert_close(corners(pixels), [RED, GREEN, BLUE, WHITE])
    if format_ != "JPEG":
        np.testing.assert_array_equal(pixels, np.asarray(quarters()))


@pytest.mark.parametrize("orientation", STORED)
def test_orientation_is_applied_to_photos_that_are_shrunk_while_decoding(orientation):
    pixels = decode(with_orientation(orientation, "JPEG", scale=8), (32, 48))
    assert_close(corners(pixels), [RED, GREEN, BLUE, WHITE])


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0garbage of a phone",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xff" * 40,
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0\0\0\0\0",  # orientation 99
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x04six\0\0\0\0\0",  # orientation "six"
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x05\0\0\0\x01\0\0\0\x1a\0\0\0\0\0\0\0\0",  # orientation 0/0
    ],
)
def test_a_broken_exif_block_does_not_cost_the_photo(exif):
    data = encode(quarters(), "JPEG", exif=exif, quality=95, subsampling=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_close(corners(decode(data, (32, 48))), [RED, GREEN, BLUE, WHITE])


# ---- geometry --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resize", FITS)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("size", [(8, 8), (10, 30), (30, 10), (200, 100), (1, 1)])
def test_size_is_height_and_width(resize, interpolation, size):
    for kind in ("jpeg", "png"):
        assert decode(photos()[kind], size, resize, interpolation).shape == (*size, 3)


def stripes(height: int, width: int) -> bytes:
    """Thirds, along the longer side: red, green, blue."""
    pixels = np.zeros((height, width, 3), np.uint8)
    along = pixels if height > width else pixels.transpose(1, 0, 2)
    third = len(along) // 3
    along[:third], along[third : 2 * third], along[2 * third :] = RED, GREEN, BLUE
    return encode(Image.fromarray(pixels), "PNG")


@pytest.mark.parametrize(("height", "width"), [(30, 90), (90, 30)])
def test_crop_keeps_the_centre(height, width):
    assert (decode(stripes(height, width), (16, 16), "crop", "nearest") == GREEN).all()
    assert (decode(stripes(height, width), (16, 16), "crop")[2:-2, 2:-2] == GREEN).all()


@pytest.mark.parametrize(("height", "width"), [(30, 90), (90, 30)])
def test_stretch_keeps_everything(height, width):
    pixels = decode(stripes(height, width), (12, 12), "stretch", "nearest")
    line = pixels[:, 5] if height > width else pixels[5]
    assert [tuple(line[i]) for i in (1, 5, 10)] == [RED, GREEN, BLUE]


def test_pad_keeps_the_aspect_between_black_bars():
    pixels = decode(stripes(30, 90), (24, 24), "pad", "nearest")
    assert (pixels[:8] == 0).all()
    assert (pixels[16:] == 0).all()
    assert [tuple(pixels[12, i]) for i in (3, 12, 20)] == [RED, GREEN, BLUE]
    turned = decode(stripes(90, 30), (24, 24), "pad", "nearest")
    np.testing.assert_array_equal(turned, pixels.transpose(1, 0, 2))


def test_crop_to_a_wide_size_cuts_above_and_below():
    pixels = decode(stripes(90, 30), (10, 10 * 3), "crop", "nearest")
    assert (pixels == GREEN).all()


def test_a_line_of_pixels_survives_padding():
    data = encode(Image.new("RGB", (1000, 1), RED), "PNG")
    pixels = decode(data, (20, 20), "pad")
    assert (pixels == RED).all(axis=(1, 2)).sum() == 1


@pytest.mark.parametrize("resize", FITS)
def test_same_aspect_gives_the_same_pixels_however_it_is_resized(resize):
    data = photos()["png"]
    np.testing.assert_array_equal(decode(data, (16, 24), resize), decode(data, (16, 24)))


def test_a_thumbnail_is_the_whole_photo_upright_in_its_aspect_and_never_enlarged():
    assert thumbnail(encode(quarters(320, 480), "PNG"), 90).shape == (60, 90, 3)
    assert thumbnail(encode(quarters(480, 320), "JPEG"), 90).shape == (90, 60, 3)
    np.testing.assert_array_equal(thumbnail(encode(quarters(), "PNG"), 90), np.asarray(quarters()))
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    lying = encode(quarters(320, 480), "JPEG", exif=exif)
    shown = thumbnail(lying, 90)
    assert shown.shape == (90, 60, 3)
    np.testing.assert_allclose(shown[5, 5], BLUE, atol=30)
    assert thumbnail(encode(quarters(1, 1000), "PNG"), 90).shape == (1, 90, 3)
    with pytest.raises(ImageError, match="empty file"):
        thumbnail(b"", 90)


def test_nearest_takes_pixels_of_the_photo_and_the_others_average():
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    data = encode(Image.fromarray(board.astype(np.uint8)), "PNG")
    assert set(np.unique(decode(data, (16, 16), interpolation="nearest"))) <= {0, 255}
    for name in set(INTERPOLATIONS) - {"nearest"}:
        assert_close(decode(data, (16, 16), interpolation=name)[2:-2, 2:-2], GREY, 4)


def test_nearest_sees_the_pixels_of_a_large_jpeg_themselves():
    """Shrinking while decoding would average before the nearest pixel is taken."""
    noise = np.random.default_rng(0).integers(0, 256, (256, 256), dtype=np.uint8)
    data = encode(Image.fromarray(noise), "JPEG", quality=90)
    whole = Image.open(io.BytesIO(data)).resize((64, 64), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(decode(data, (64, 64), interpolation="nearest")[:, :, 0], np.asarray(whole))


@pytest.mark.parametrize("orientation", [1, 6])
def test_shrinking_while_decoding_never_goes_below_the_wanted_size(orientation):
    """Stripes of one pixel, 512 high and 128 wide: the width must not be lost, whichever way it lies."""
    upright = np.tile(np.array([0, 255], np.uint8), (512, 64))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(np.rot90(upright) if orientation == 6 else upright)
    data = encode(Image.fromarray(stored), "JPEG", quality=95, exif=exif)
    assert_close(decode(data, (64, 128))[:, :, 0], upright[:64], 20)


@pytest.mark.parametrize("resize", FITS)
def test_shrinking_while_decoding_changes_little(resize):
    data, size = encode(quarters(600, 800), "JPEG", quality=95), (64, 48)
    lossless = encode(Image.open(io.BytesIO(data)), "PNG")
    difference = decode(data, size, resize).astype(int) - decode(lossless, size, resize)
    assert np.abs(difference).mean() < 2


def test_unknown_names_are_refused_with_what_is_allowed():
    with pytest.raises(ValueError, match="stretch, crop, pad"):
        decode(photos()["png"], (8, 8), resize="squeeze")
    with pytest.raises(ValueError, match="Did you mean 'bilinear'"):
        decode(photos()["png"], (8, 8), interpolation="biliner")


# ---- what cannot be decoded ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "^empty file$"),
        (b"Hello, I am no photo at all.", "not an image of a known format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"\xff\xd8\xff", "header is damaged"),
        (raw_png(100_000, 100_000, 8, 2), "100000×100000 pixels are over the limit of 89478485"),
        (raw_png(10_000, 9_000, 8, 2), "10000×9000 pixels are over the limit of"),
    ],
)
def test_the_reason_is_a_short_sentence(data, reason):
    with pytest.raises(ImageError, match=reason) as caught:
        decode(data, (8, 8))
    assert len(str(caught.value)) < 250
    assert "0x" not in str(caught.value)  # Pillow names the buffer by its address: another one in each run


@pytest.mark.parametrize("kind", photos())
def test_a_photo_that_is_cut_off_is_refused(kind):
    data = photos()[kind]
    with pytest.raises(ImageError):
        decode(data[: len(data) // 4], (8, 8))


def test_a_truncated_download_is_called_so():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), "JPEG")
    with pytest.raises(ImageError, match=r"^truncated: "):
        decode(data[: len(data) // 2], (64, 64))


@pytest.mark.parametrize("kind", ["png", "png alpha", "gif", "tiff", "tiff lzw", "jpeg"])
def test_the_pixel_limit_is_a_setting_and_not_that_of_the_users_process(kind):
    with mock.patch.object(Image, "MAX_IMAGE_PIXELS", 10):
        decode(photos()[kind], (32, 48), max_pixels=32 * 48)
        with pytest.raises(ImageError, match=r"limit of 1535; set base\.max_pixels = 1536 "):
            decode(photos()[kind], (32, 48), max_pixels=32 * 48 - 1)
        assert Image.MAX_IMAGE_PIXELS == 10


def test_values_without_a_fixed_range_are_refused_and_not_guessed():
    data = encode(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF")
    with pytest.raises(ImageError, match="32 bit"):
        decode(data, (8, 8))


def test_running_out_of_memory_is_one_photos_failure():
    with (
        mock.patch.object(Image.Image, "resize", side_effect=MemoryError),
        pytest.raises(ImageError, match="not enough memory"),
    ):
        decode(photos()["png"], (8, 8))


def test_warnings_do_not_reach_the_user_even_from_many_threads(capfd):
    many_pixels = photos()["png"]
    odd_exif = encode(quarters(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xff" * 40)
    with (
        warnings.catch_warnings(record=True) as caught,
        mock.patch.object(Image, "MAX_IMAGE_PIXELS", 1000),
        ThreadPoolExecutor(8) as pool,
    ):
        warnings.simplefilter("always")
        list(pool.map(reason_for, [many_pixels, odd_exif] * 50))
    assert caught == []
    assert capfd.readouterr().err == ""


def test_pillows_log_does_not_reach_the_user():
    three_samples = b"\x15\x01\x03\x00\x01\x00\x00\x00\x03\x00"
    data = photos()["tiff"].replace(three_samples, three_samples[:-1] + b"\x5e")  # 24,067 samples per pixel
    assert data != photos()["tiff"]
    code = "import sys; from featcache.images.decode import decode; decode(sys.stdin.buffer.read(), (8, 8))"
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True)
    assert b"ImageError: a TIFF of 24067 bands" in done.stderr
    assert not done.stderr.startswith(b"More samples")


def test_the_users_own_warnings_are_left_alone():
    decode(photos()["png"], (8, 8))
    with pytest.warns(UserWarning, match="mine"):
        warnings.warn("mine", stacklevel=1)


def test_threads_give_the_same_pixels():
    kinds = list(photos()) * 5
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda kind: decode(photos()[kind], (20, 20)), kinds))
    for kind, pixels in zip(kinds, together, strict=True):
        np.testing.assert_array_equal(pixels, decode(photos()[kind], (20, 20)))


# ---- broken files at random ------------------------------------------------------------------------------


def reason_for(data: bytes) -> str | None:
    """Decode; return the reason of a refusal, or None for an array of the right kind."""
    try:
        pixels = decode(data, (9, 7), max_pixels=2_000_000)  # a broken size must not make the test slow
    except ImageError as error:
        return str(error)
    assert pixels.shape == (9, 7, 3)
    assert pixels.dtype == np.uint8
    return None


def flip(data: bytes, places: list[tuple[float, int]]) -> bytes:
    changed = bytearray(data)
    for place, value in places:
        changed[int(place * len(changed))] ^= value
    return bytes(changed)


place = st.floats(0, 1, exclude_max=True)
good = st.sampled_from(sorted(photos())).map(lambda kind: photos()[kind])
flips = st.lists(st.tuples(place, st.integers(1, 255)), min_size=1, max_size=6)
broken = st.one_of(
    st.builds(lambda data, where: data[: int(where * len(data))], good, place),
    st.builds(flip, good, flips),
    # the header is a small part of the file, and the most delicate
    st.builds(lambda data, places: flip(data[:64], places) + data[64:], good, flips),
    st.builds(
        lambda data, where, junk: data[: int(where * len(data))] + junk, good, place, st.binary(max_size=99)
    ),
    st.builds(lambda header, data, n: header[:n] + data[n:], good, good, st.integers(2, 64)),
    st.builds(lambda data, where, n: data[: int(where * len(data))] * n, good, place, st.integers(2, 3)),
    st.binary(max_size=200),
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=broken)
def test_a_broken_photo_gives_pixels_or_a_reason_and_nothing_else(data):
    reason = reason_for(data)
    if reason is not None:
        assert reason
        assert "\n" not in reason
        assert len(reason) < 250


@settings(max_examples=100, deadline=None)
@given(kind=st.sampled_from(sorted(photos())), where=place)
def test_a_photo_that_decodes_decodes_the_same_again(kind, where):
    data = photos()[kind][: int(where * len(photos()[kind]))]
    assert reason_for(data) == reason_for(data)


def test_the_package_loads_quickly():
    code = (
        "import sys, featcache.images.decode, featcache.images.table, featcache.images.samples;"
        "sys.exit(', '.join({'tensorflow', 'keras', 'sklearn', 'scipy'} & sys.modules.keys()) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == ""
