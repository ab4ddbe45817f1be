"""Augmented views follow from the photo's bytes and the view's number, and stay within what was asked for."""

import io
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from featcache.images import views as module
from featcache.images.decode import Decoding, decode, decode_views
from featcache.images.source import digest_of
from featcache.images.views import View, draw, views_of
from featcache.recipe import AugmentSettings

ALL = AugmentSettings(views=4, flip=True, rotation=0.2, crop=(0.6, 1.0), brightness=0.3, contrast=0.3)
SIZE = (24, 32)

shares = st.floats(0.0, 1.0)
settings = st.builds(
    AugmentSettings,
    views=st.integers(1, 9),
    flip=st.booleans(),
    rotation=st.floats(0.01, 0.5),
    crop=st.tuples(st.floats(0.01, 1.0), st.floats(0.01, 1.0)).map(sorted).map(tuple),
    brightness=shares,
    contrast=shares,
)


def photo(size=(60, 40), kind="PNG", seed=0, **options):
    noise = np.random.default_rng(seed).integers(0, 255, (7, 9, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(file, kind, **options)
    return file.getvalue()


def pixels_of(data, views, size=SIZE, **how):
    return decode_views(data, digest_of(data), views, Decoding(size, **how)).pixels


@given(digest=st.binary(min_size=32, max_size=32), number=st.integers(1, 1000), settings=settings)
def test_what_is_drawn_stays_within_what_was_asked_for(digest, number, settings):
    drawn = draw(digest, View(settings, number))
    area, ratio = drawn.width * drawn.height, drawn.width / drawn.height
    assert settings.crop[0] - 1e-9 <= area <= settings.crop[1] + 1e-9
    assert 3 / 4 - 1e-9 <= ratio <= 4 / 3 + 1e-9
    assert min(drawn.width, drawn.height) >= module.least_side(settings) - 1e-9
    assert min(drawn.left, drawn.top) >= 0
    assert max(drawn.left + drawn.width, drawn.top + drawn.height) <= 1 + 1e-9
    assert abs(drawn.turn) <= settings.rotation
    assert abs(drawn.brightness - 1) <= settings.brightness + 1e-9
    assert abs(drawn.contrast - 1) <= settings.contrast + 1e-9
    assert settings.flip or not drawn.flip
    assert drawn == draw(digest, View(settings, number))


def test_draws_fill_their_ranges_evenly():
    drawn = [draw(bytes([n % 256, n // 256]) * 16, View(ALL, 1)) for n in range(2000)]
    for values, low, high in (
        ([one.turn for one in drawn], -0.2, 0.2),
        ([one.width * one.height for one in drawn], 0.6, 1.0),
        ([one.brightness for one in drawn], 0.7, 1.3),
        ([one.contrast for one in drawn], 0.7, 1.3),
    ):
        counts, _ = np.histogram(values, 10, (low, high))
        assert counts.sum() == 2000
        # a tenth of 2,000 with a standard deviation of 13.4
        assert abs(counts - 200).max() < 5 * 13.4
    assert abs(sum(one.flip for one in drawn) - 1000) < 5 * 22.4
    # no draw tells another
    table = np.array([[d.turn, d.brightness, d.contrast, d.flip, d.width * d.height] for d in drawn], float)
    assert abs(np.corrcoef(table.T) - np.eye(5)).max() < 5 / math.sqrt(2000)


def test_a_change_that_is_switched_off_leaves_the_others_as_they_are():
    without = ALL.model_copy(update={"brightness": 0.0, "crop": (1.0, 1.0)})
    one, other = draw(b"x" * 32, View(ALL, 3)), draw(b"x" * 32, View(without, 3))
    assert (one.turn, one.contrast, one.flip) == (other.turn, other.contrast, other.flip)
    assert (other.brightness, other.width, other.height) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_views_pixels_do_not_depend_on_which_others_are_asked_for(kind, resize):
    data = photo((600, 400), kind)
    views = views_of(ALL)
    together = pixels_of(data, views, resize=resize)
    for view, pixels in zip(views, together, strict=True):
        assert np.array_equal(pixels_of(data, [view], resize=resize)[0], pixels)
    for pixels, again in zip(together, reversed(pixels_of(data, views[::-1], resize=resize)), strict=True):
        assert np.array_equal(pixels, again)
    assert np.array_equal(together[0], decode(data, SIZE, resize))
    different = {pixels.tobytes() for pixels in together}
    assert len(different) == 4
    assert all(pixels.shape == (*SIZE, 3) and pixels.dtype == np.uint8 for pixels in together)


def test_views_are_the_same_in_another_process(tmp_path):
    data = photo((600, 400), "JPEG")
    (tmp_path / "photo.jpg").write_bytes(data)
    child = (
        "import sys, json, hashlib; from pathlib import Path\n"
        "from featcache.images.decode import Decoding, decode_views\n"
        "from featcache.images.views import views_of\n"
        "from featcache.recipe import AugmentSettings\n"
        "data = Path(sys.argv[1]).read_bytes()\n"
        "views = views_of(AugmentSettings(**json.loads(sys.argv[2])))\n"
        "pixels = decode_views(data, hashlib.sha256(data).digest(), views, Decoding((24, 32))).pixels\n"
        "print([v.key for v in views[1:]], [hashlib.sha256(p.tobytes()).hexdigest() for p in pixels])"
    )
    command = [sys.executable, "-c", child, str(tmp_path / "photo.jpg"), json.dumps(ALL.model_dump())]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    views = views_of(ALL)
    hashes = [digest_of(pixels.tobytes()).hex() for pixels in pixels_of(data, views)]
    assert said == f"{[view.key for view in views[1:]]} {hashes}"


def test_the_numbers_of_views_never_change():
    """They stand in stores: another number for the same view would have everything computed again."""
    assert [view.key for view in views_of(ALL)[1:]] == NUMBERS


NUMBERS = [8392711239749928361, 3445615620755758117, 984232003718676470]


def test_a_views_number_follows_from_all_settings_but_how_many_views_there_are(monkeypatch):
    keys = [View(ALL, number).key for number in range(1, 5)]
    assert [View(ALL.model_copy(update={"views": 9}), number).key for number in range(1, 5)] == keys
    assert len(set(keys)) == 4
    assert all(0 < key < 2**63 for key in keys)
    for change in ({"flip": False}, {"rotation": 0.1}, {"crop": (0.5, 1.0)}, {"contrast": 0.2}):
        assert View(ALL.model_copy(update=change), 1).key != keys[0]
    monkeypatch.setattr(module, "AUGMENTATION", 2)
    module._key.cache_clear()
    assert View(ALL, 1).key != keys[0]
    module._key.cache_clear()


def only(**change):
    return View(AugmentSettings(**change), 1)


def a_photo_that_draws(view, condition):
    for seed in range(100):
        data = photo(seed=seed)
        drawn = draw(digest_of(data), view)
        if condition(drawn):
            return data, drawn
    raise AssertionError("none of 100 photos")


def test_a_flip_exchanges_left_and_right():
    data, _ = a_photo_that_draws(only(flip=True), lambda drawn: drawn.flip)
    plain, flipped = pixels_of(data, [None, only(flip=True)])
    assert np.array_equal(flipped, plain[:, ::-1])


def test_a_turn_keeps_the_centre_and_fills_the_corners_with_reflections():
    view = only(rotation=0.5)
    white = io.BytesIO()
    Image.new("RGB", (50, 30), "white").save(white, "PNG")
    turned = decode_views(white.getvalue(), b"x" * 32, [view], Decoding((30, 50))).pixels[0]
    assert (turned == 255).all(), "no black comes in from outside"
    data, drawn = a_photo_that_draws(view, lambda drawn: 0.2 < drawn.turn < 0.3)
    plain, turned = (image.astype(int) for image in pixels_of(data, [None, view], (31, 31)))
    # about a quarter turn counterclockwise
    expected = np.asarray(
        Image.fromarray(plain.astype(np.uint8)).rotate(360 * drawn.turn, Image.Resampling.BILINEAR), int
    )
    centre = (slice(8, 23), slice(8, 23))
    assert abs(turned[centre] - expected[centre]).max() <= 2
    assert abs(turned[centre] - plain[centre]).max() > 20


def test_a_crop_keeps_the_resolution_that_a_jpeg_has():
    """The decoder may halve a large JPEG, but never below what the smallest crop needs."""
    fine = np.zeros((800, 800, 3), np.uint8)
    fine[:, ::4] = fine[:, 1::4] = 255  # stripes of two pixels
    file = io.BytesIO()
    Image.fromarray(fine).save(file, "JPEG", quality=95)
    data = file.getvalue()
    view = View(AugmentSettings(crop=(0.04, 0.04)), 1)
    drawn = draw(digest_of(data), view)
    (pixels,) = pixels_of(data, [view], (200, 200))
    # as wide in the crop as in the photo: the stripes are there, not their mean
    assert round(drawn.width * 800) in range(130, 190)
    assert pixels.std() > 80


@pytest.mark.parametrize("kind", ["brightness", "contrast"])
def test_brightness_and_contrast_are_factors(kind):
    view = only(**{kind: 0.5})
    data, drawn = a_photo_that_draws(view, lambda drawn: getattr(drawn, kind) < 0.7)
    plain, varied = (image.astype(float) for image in pixels_of(data, [None, view]))
    factor = getattr(drawn, kind)
    measured = varied.mean() / plain.mean() if kind == "brightness" else varied.std() / plain.std()
    assert measured == pytest.approx(factor, rel=0.1)


def test_without_settings_there_is_the_plain_photo_alone():
    assert views_of(None) == [None]
    assert views_of(ALL.model_copy(update={"views": 1})) == [None]
    assert [view and view.number for view in views_of(ALL)] == [None, 1, 2, 3]
