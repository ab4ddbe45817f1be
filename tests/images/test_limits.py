"""Photos that declare more than they are worth are refused before memory or time is spent on them."""

import io
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from featcache.errors import ImageError
from featcache.images import colour, limits
from featcache.images.decode import decode
from featcache.images.scans import count_scans


def webp(kind, width, height):
    """Return the header of a WebP file of a kind, without pixels."""
    if kind == b"VP8X":
        body = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    elif kind == b"VP8L":
        body = b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14) + bytes(8)
    else:
        body = b"\x10\x00\x00\x9d\x01\x2a" + struct.pack("<HH", width, height) + bytes(8)
    chunk = kind + struct.pack("<I", len(body)) + body
    return (b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk).ljust(156, b"\0")


@pytest.mark.parametrize("kind", [b"VP8X", b"VP8L", b"VP8 "])
def test_a_huge_canvas_of_webp_is_refused_before_it_is_allocated(kind):
    for side in (16383, 9000):  # of 9000, Pillow's limit allows the pixels, and libwebp needs 1.3 GB
        with pytest.raises(ImageError, match=f"{side}×{side} pixels are over the limit"):
            decode(webp(kind, side, side), (8, 8))


def test_the_canvas_of_real_webp_files_is_read(tmp_path):
    for lossless in (True, False):
        data = io.BytesIO()
        Image.new("RGB", (300, 200), "red").save(data, "WEBP", lossless=lossless)
        assert limits._webp_canvas(data.getvalue()) == (300, 200)
        Image.new("RGBA", (30, 20)).save(data := io.BytesIO(), "WEBP", lossless=lossless)
        assert limits._webp_canvas(data.getvalue()) == (30, 20)


def progressive(size=(1600, 1200)):
    data = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(data, "JPEG", progressive=True)
    return data.getvalue()


def with_scans(data, times):
    """Return a JPEG whose last scan is there many times more."""
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * times + data[-2:]


def test_a_progressive_jpeg_is_decoded_unless_its_scans_are_too_many():
    data = progressive()
    assert decode(data, (1200, 1600)).shape == (1200, 1600, 3)
    with pytest.raises(ImageError, match=r"a JPEG of 12\d\d scans of 1600×1200 pixels; at most 1041"):
        decode(with_scans(data, 1200), (1200, 1600))


def test_a_large_jpeg_is_decoded_reduced_where_a_png_is_refused():
    image = Image.effect_noise((1400, 1000), 50)
    for name, sound in (("JPEG", True), ("PNG", False)):
        data = io.BytesIO()
        image.save(data, name)
        if sound:
            assert decode(data.getvalue(), (100, 140), max_pixels=1_000_000).shape == (100, 140, 3)
        else:
            reason = "1400×1000 pixels are over the limit of 1000000; set base.max_pixels = 1400000 "
            with pytest.raises(ImageError, match=reason):
                decode(data.getvalue(), (100, 140), max_pixels=1_000_000)


def test_bands_over_white_are_the_same_pixels_as_the_whole():
    rgba = np.random.default_rng(0).integers(0, 256, (1200, 40, 4), np.uint8)
    image = Image.fromarray(rgba)
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    whole = Image.alpha_composite(white, image).convert("RGB")
    np.testing.assert_array_equal(np.asarray(colour._over_white(image)), np.asarray(whole))


def test_scans_are_counted_at_full_size_however_far_the_photo_is_reduced():
    """The entropy coding of all scans is read at any scale: such a file of 965 kB took 77 s."""
    data = progressive()
    with pytest.raises(ImageError, match="scans of 1600×1200 pixels"):
        decode(with_scans(data, 1200), (8, 8))


def sequential(scans, size=(1600, 1200), components=3):
    """Return a baseline JPEG of one component a scan, whose scans hold no data: libjpeg fills in."""
    data = io.BytesIO()
    Image.new("L", (8, 8)).save(data, "JPEG")
    head, _, _ = data.getvalue().partition(b"\xff\xda")
    at = head.index(b"\xff\xc0")
    frame = struct.pack(">BHHB", 8, size[1], size[0], components)
    frame += b"".join(b"%c\x11\x00" % (1 + number) for number in range(components))
    head = head[:at] + b"\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame + head[at + 13 :]
    scan = b"\xff\xda\x00\x08\x01%c\x00\x00\x3f\x00"
    return head + b"".join(scan % (1 + number % components) for number in range(scans)) + b"\xff\xd9"


def test_coefficients_of_all_components_stay_within_the_budget():
    """A file of 369 bytes took 1.4 GB."""
    assert decode(sequential(4, components=4), (8, 8)).shape == (8, 8, 3)
    with pytest.raises(ImageError, match="13300×13300 pixels are over the limit of 157286400"):
        decode(sequential(4, (13300, 13300), components=4), (8, 8))


def test_scans_of_a_sequential_jpeg_are_limited_too():
    """One of 20 kB, 2,000 scans and 16 megapixels took 7 s."""
    assert decode(sequential(3), (8, 8)).shape == (8, 8, 3)
    with pytest.raises(ImageError, match="a JPEG of 1200 scans of 1600×1200 pixels; at most 1041"):
        decode(sequential(1200), (8, 8))


def test_only_scans_of_the_photo_itself_count():
    """A motion photo has a video behind its end, an Exif block may have a thumbnail: neither is decoded."""
    data = progressive()
    exif = b"\xff\xe1" + struct.pack(">H", 6002) + b"\xff\xda" * 3000
    photo = data[:2] + exif + data[2:] + b"\xff\xda" * 3000
    assert count_scans(photo) == count_scans(data) == 10
    np.testing.assert_array_equal(decode(photo, (30, 40)), decode(data, (30, 40)))


def tiff_of_one_tile(side):
    """Return a TIFF of 16×16 pixels in one compressed tile of `side`, of which only the header is there."""
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 200, 325: 8}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return (b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries).ljust(220, b"\0")


def test_a_huge_tile_of_a_small_tiff_is_refused():
    with pytest.raises(ImageError, match=r"a TIFF tile of 20000×20000 pixels are over the limit"):
        decode(tiff_of_one_tile(20000), (8, 8))


def test_a_tiff_in_tiles_is_decoded():
    image = Image.effect_noise((300, 200), 60)
    data = io.BytesIO()
    image.save(data, "TIFF", tile=(64, 64), compression="tiff_deflate")
    whole = io.BytesIO()
    image.save(whole, "PNG")
    np.testing.assert_array_equal(decode(data.getvalue(), (200, 300)), decode(whole.getvalue(), (200, 300)))


def jpeg2000(width, height, components=3):
    """Return a JPEG 2000 codestream of which only the header is there."""
    size = struct.pack(
        ">HHIIIIIIIIH", 38 + 3 * components, 0, width, height, 0, 0, width, height, 0, 0, components
    )
    return b"\xff\x4f\xff\x51" + size + b"\x07\x01\x01" * components + bytes(50)


def test_a_huge_canvas_of_jpeg_2000_is_refused_before_it_is_allocated():
    with pytest.raises(ImageError, match="20000×20000 pixels are over the limit of 39321600"):
        decode(jpeg2000(20000, 20000), (8, 8))
    inside = bytes(30) + jpeg2000(20000, 20000)  # the header of the container may declare less
    assert limits._jpeg2000_canvas(inside) == (20000, 20000, 3)
    with pytest.raises(ImageError, match="are over the limit"):
        decode(jpeg2000(3000, 3000, 4000), (8, 8))


@pytest.mark.parametrize("header", [b"P6 60000 60000 255\n", b"P4 90000 9000\n", b"P3 30000 30000 9\n"])
def test_a_huge_ppm_is_refused(header):
    with pytest.raises(ImageError, match="pixels are over the limit of 89478485"):
        decode(header, (8, 8))


def test_a_long_ppm_of_text_is_refused():
    with pytest.raises(ImageError, match="a PPM of 3000×3000 pixels as text takes too long"):
        decode(b"P3 3000 3000 255\n" + b"1 " * 100, (8, 8))


@pytest.mark.parametrize("kind", ["AVIF", "TIFF"])
def test_the_limit_holds_for_every_format(kind):
    data = io.BytesIO()
    Image.new("RGB", (200, 100)).save(data, kind)
    assert decode(data.getvalue(), (8, 8), max_pixels=20_000).shape == (8, 8, 3)
    with pytest.raises(ImageError, match=r"200×100 pixels .* set base\.max_pixels = 20000 "):
        decode(data.getvalue(), (8, 8), max_pixels=19_999)


def test_the_limit_that_is_named_is_enough(monkeypatch):
    monkeypatch.setattr(limits, "BUDGET_BYTES", 12 * 10_000)
    data = io.BytesIO()
    Image.new("RGB", (200, 100)).save(data, "WEBP")
    with pytest.raises(ImageError, match="over the limit") as caught:
        decode(data.getvalue(), (8, 8), max_pixels=10_000)
    named = int(str(caught.value).split("max_pixels = ")[1].split()[0])
    assert decode(data.getvalue(), (8, 8), max_pixels=named).shape == (8, 8, 3)
    with pytest.raises(ImageError, match="over the limit"):
        decode(data.getvalue(), (8, 8), max_pixels=named - 1)


def test_a_jpeg_of_a_single_scan_is_limited_by_its_reduced_size():
    data = sequential(1, (10000, 10000), components=1)
    assert decode(data, (8, 8)).shape == (8, 8, 3)
    with pytest.raises(ImageError, match="10000×10000 pixels are over the limit"):
        decode(data, (8, 8), interpolation="nearest")


# not ru_maxrss, which a child takes over from its parent
PEAK = """
import sys
from featcache.images.decode import decode
def peak(): return next(int(line.split()[1]) for line in open("/proc/self/status") if "VmHWM" in line)
before = peak()
decode(open(sys.argv[1], "rb").read(), (96, 96))
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
@pytest.mark.parametrize(("name", "side"), [("PNG", 9400), ("WEBP", 8600)])
def test_the_largest_photos_stay_within_the_budget(tmp_path, name, side):
    path = tmp_path / "large"
    options = {"compress_level": 1} if name == "PNG" else {"lossless": True, "method": 0}
    Image.new("RGBA", (side, side), (9, 9, 9, 9)).save(path, name, **options)
    done = subprocess.run([sys.executable, "-c", PEAK, path], capture_output=True, text=True, check=True)
    assert side * side * 4 < int(done.stdout) * 1024 < limits.BUDGET_BYTES
