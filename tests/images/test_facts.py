"""Facts of a photo are what they are called, and what they say of a set is true."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_photos import deep_png, encode, quarters, tiff

from featcache.images.decode import Decoding, decode_views
from featcache.images.facts import FACTS, picture_findings
from featcache.images.formats import FORMATS
from featcache.images.views import View
from featcache.recipe import AugmentSettings

SHARED = Path(os.environ.get("FEATCACHE_SHARED", Path(__file__).parents[3] / "shared"))


def row(data: bytes, size=(32, 48), **how) -> np.ndarray:
    found = decode_views(data, b"", [None], Decoding(size, **how)).facts
    assert found is not None
    assert (found.dtype, found.shape) == (np.float32, (len(FACTS),))
    return found


def facts(data: bytes, size=(32, 48), **how) -> dict[str, float]:
    return dict(zip(FACTS, row(data, size, **how).tolist(), strict=True))


def photo(seed: int = 0, size=(48, 32)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def test_facts_of_the_file():
    exif = Image.Exif()
    exif[0x0112] = 6
    found = facts(encode(photo(size=(480, 320)), "JPEG", exif=exif))
    assert (found["width"], found["height"], found["largest_page"]) == (320, 480, 320 * 480)
    assert FORMATS[int(found["format"])] == "JPEG"
    assert (found["bits"], found["channels"], found["frames"], found["highest"]) == (8, 3, 1, 0)
    grey = facts(encode(photo().convert("L"), "PNG"))
    assert (FORMATS[int(grey["format"])], grey["channels"], grey["colourfulness"]) == ("PNG", 1, 0)
    assert facts(encode(photo().convert("1"), "PNG"))["bits"] == 1
    half = photo().convert("RGBA")
    half.putpixel((0, 0), (0, 0, 0, 0))
    assert facts(encode(half, "PNG"))["transparency"] == 1
    half.putalpha(0)
    assert facts(encode(half, "PNG"))["transparency"] == 2


def test_the_highest_value_is_the_files_own():
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 64
    for data in (deep_png(values), deep_png(np.stack([values] * 3, -1)), tiff(values, 1)):
        found = facts(data, (8, 8))
        assert (found["bits"], found["highest"], found["brightest"]) == (16, 63 * 64, 15)


def test_facts_of_the_pixels():
    pixels = np.full((32, 48, 3), 100, np.uint8)
    pixels[::2] = 140
    found = facts(encode(Image.fromarray(pixels), "PNG"))
    assert (found["brightness"], found["contrast"]) == (120, 20)
    assert (found["darkest"], found["brightest"], found["levels"], found["spread"]) == (100, 140, 2, 40)
    assert found["blur"] == 0  # the rows that are looked at are all of one kind
    plain = facts(encode(Image.new("RGB", (48, 32), (255, 0, 0)), "PNG"))
    # Cb = 85 and Cr = 255, and no deviation
    assert plain["colourfulness"] == pytest.approx(0.3 * np.hypot(85 - 128, 255 - 128), abs=0.1)
    assert (plain["spread"], plain["levels"]) == (0, 1)


def test_a_blurred_photo_has_the_lower_variance_of_the_laplacian():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8))
    soft = noise.resize((20, 20)).resize((160, 160))
    sharp, blurred = (facts(encode(image, "PNG"), (160, 160)) for image in (noise, soft))
    assert sharp["blur"] > 20 * blurred["blur"] > 0


def test_colours_of_equal_luma_are_no_single_colour():
    pixels = np.full((32, 48, 3), (150, 100, 80), np.uint8)
    pixels[:, 24:] = (70, 140, 83)
    found = facts(encode(Image.fromarray(pixels), "PNG"))
    assert found["levels"] <= 3
    assert found["spread"] == 80


def test_bars_do_not_count():
    data = encode(photo(size=(96, 32)), "PNG")
    padded, whole = facts(data, (48, 48), resize="pad"), facts(data, (16, 48))
    assert padded == whole


def test_views_alone_have_no_facts():
    view = View(AugmentSettings(flip=True), 1)
    assert decode_views(encode(photo(), "PNG"), b"x", [view], Decoding((8, 8))).facts is None
    both = decode_views(encode(photo(), "PNG"), b"x", [view, None], Decoding((8, 8)))
    np.testing.assert_array_equal(both.facts, row(encode(photo(), "PNG"), (8, 8)))


def test_the_smallest_photos_have_facts():
    assert np.isfinite(row(encode(Image.new("RGB", (1, 1)), "PNG"), (1, 1))).all()


def pages(*images: Image.Image, kind: str = "TIFF", **options) -> bytes:
    return encode(images[0], kind, save_all=True, append_images=list(images[1:]), **options)


def test_frames_and_pages_are_counted():
    three = [photo(number) for number in range(3)]
    for kind in ("GIF", "PNG", "WEBP", "TIFF", "AVIF"):
        assert facts(pages(*three, kind=kind))["frames"] == 3, kind
    # the second picture of a JPEG is a preview or a map of depth or light
    assert facts(pages(*three, kind="MPO"))["frames"] == 1


def test_an_overview_is_no_page():
    """Writers of large pictures put smaller versions into further directories, and say so."""
    assert facts(with_directory(254, 1))["frames"] == 1
    assert facts(with_directory(254, 4))["frames"] == 1
    assert facts(with_directory(254, 0))["frames"] == 2


def with_directory(tag: int, value: int) -> bytes:
    """A TIFF with a second directory, of a grey picture of 4×4 pixels and one more tag."""
    whole = tiff(np.asarray(photo()), 2)
    tags = {tag: value, 256: 4, 257: 4, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 4, 279: 16}
    second = struct.pack("<H", len(tags))
    second += b"".join(
        struct.pack("<HHII", *one) for one in ((key, 4, 1, n) for key, n in sorted(tags.items()))
    )
    link = 10 + 12 * struct.unpack_from("<H", whole, 8)[0]
    return whole[:link] + struct.pack("<I", len(whole)) + whole[link + 4 :] + second + bytes(4)


# ---- findings --------------------------------------------------------------------------------------------


def findings(**photos: bytes) -> dict[str, tuple[str, ...]]:
    found = picture_findings(list(photos), np.array([row(data) for data in photos.values()]))
    for finding in found:
        assert str(len(finding.photos)) in finding.text
        assert finding.photos[0] in finding.text
    return {finding.kind: finding.photos for finding in found}


def test_good_photos_give_no_findings():
    good = {
        "photo": encode(photo(), "JPEG"),
        "grey": encode(photo().convert("L"), "PNG"),
        "dim": encode(Image.fromarray(np.asarray(photo()) // 4), "PNG"),
        "quarters": encode(quarters(), "PNG"),
        "bilevel": encode(photo().convert("1"), "PNG"),
    }
    assert findings(**good) == {}


def test_what_holds_almost_nothing_is_found():
    dark = Image.fromarray(np.asarray(photo()) // 16)
    few = Image.fromarray(np.asarray(photo().convert("L")) // 32 * 3 + 100)
    blank = Image.new("RGB", (48, 32), (200, 60, 60))
    found = findings(
        good=encode(photo(), "JPEG"),
        dark=encode(dark, "PNG"),
        few=encode(few, "PNG"),
        blank=encode(blank, "JPEG"),
        animation=pages(blank, photo(), kind="GIF"),
    )
    assert found == {
        "one_colour": ("blank", "animation"),
        "nearly_black": ("dark",),
        "few_levels": ("few",),
        "further_frames": ("animation",),
    }


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_few_bits_in_16_are_named_with_a_range_that_helps(bits):
    values = (np.asarray(photo().convert("L")).astype(np.uint16) << (bits - 8)) + 1
    data = deep_png(values)
    (finding,) = picture_findings(["scan"], row(data)[None])
    assert finding.kind == "nearly_black"
    assert f"no value above {values.max()}: set base.range = [0, {(1 << bits) - 1}]" in finding.text
    for range_ in ("minmax", (0.0, (1 << bits) - 1.0)):
        assert picture_findings(["scan"], row(data, range=range_)[None]) == []


def test_a_thumbnail_before_the_photo_is_found():
    data = pages(photo(size=(24, 16)), photo(size=(480, 320)))
    assert findings(scan=data) == {"larger_page": ("scan",)}


def test_ignored_transparency_is_found():
    clear = photo().convert("RGBA")
    clear.putalpha(0)
    assert findings(clear=encode(clear, "PNG")) == {"transparency_ignored": ("clear",)}


def test_photos_whose_facts_are_unknown_are_left_out():
    known = row(encode(Image.new("L", (8, 8), 9), "PNG"))
    (finding,) = picture_findings(["a", "b"], np.array([np.full(len(FACTS), np.nan, np.float32), known]))
    assert finding.photos == ("b",)
    assert picture_findings([], np.empty((0, len(FACTS)), np.float32)) == []


@pytest.mark.real
def test_real_photos_give_no_findings():
    paths = sorted((SHARED / "data").rglob("*.jpg"))[::10]
    assert paths
    found = picture_findings(list(map(str, paths)), np.array([row(p.read_bytes(), (96, 96)) for p in paths]))
    assert found == []
