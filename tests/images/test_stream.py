"""The stream: in order, not too far ahead, a reason for each photo that fails, no thread left behind."""

from __future__ import annotations

import io
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featcache.images import stream
from featcache.images.decode import decode
from featcache.images.stream import Photo, batched, decoded
from featcache.images.table import digest_of
from featcache.recipe import BaseSettings

SMALL = BaseSettings(image_size=(8, 8))


def grey_photo(folder: Path, grey: int) -> Photo:
    """Write a photo that is known by its shade."""
    file = folder / f"{grey:03}.png"
    Image.new("RGB", (12, 10), (grey, grey, grey)).save(file)
    return Photo(str(file), digest_of(file.read_bytes()))


def grey_photos(folder: Path, count: int) -> list[Photo]:
    return [grey_photo(folder, grey) for grey in range(count)]


class Taken:
    """Photos that count how many of them were taken."""

    def __init__(self, photos: list[Photo]):
        self.count = 0
        self._photos = photos

    def __iter__(self) -> Iterator[Photo]:
        for photo in self._photos:
            self.count += 1
            yield photo


class Decoding:
    """Stands in for `decode`: remembers the shades it was given, in the order in which it had them."""

    def __init__(self, before: Callable[[int], object] = lambda grey: None):
        self.shades: list[int] = []
        self._before = before

    def __call__(self, data: bytes, *settings: object) -> np.ndarray:
        grey = int(np.asarray(Image.open(io.BytesIO(data)))[0, 0, 0])
        self._before(grey)
        self.shades.append(grey)
        return np.full((8, 8, 3), grey, np.uint8)


def never_fails(photo: Photo, reason: str) -> None:
    pytest.fail(f"{photo.path}: {reason}")


def decoders() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("decode")]


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("waited for 10 s in vain")


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert decoders() == []


# ---- order and settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [1, 2, 7, 100])
def test_photos_come_in_order_with_their_own_pixels(tmp_path, ahead):
    photos = grey_photos(tmp_path, 20)
    got = list(decoded(photos, SMALL, ahead, never_fails))
    assert [photo for photo, _ in got] == photos
    assert [int(pixels.max()) for _, pixels in got] == list(range(20))


def test_a_photo_that_takes_long_is_still_given_first(tmp_path, monkeypatch):
    second_is_done = threading.Event()

    def let_the_second_pass(grey: int) -> None:
        if grey == 0:
            assert second_is_done.wait(10)
        if grey == 2:  # the second thread has put the second photo away before it takes the third
            second_is_done.set()

    decoding = Decoding(let_the_second_pass)
    monkeypatch.setattr(stream, "decode", decoding)
    photos = grey_photos(tmp_path, 4)
    assert [photo for photo, _ in decoded(photos, SMALL, 4, never_fails)] == photos
    assert decoding.shades.index(1) < decoding.shades.index(0)


def test_pixels_are_those_of_the_decoder_with_the_recipes_settings(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    settings = BaseSettings(image_size=(9, 14), resize="pad", interpolation="bicubic")
    ((_, pixels),) = decoded([Photo(str(tmp_path / "noise.png"))], settings, 1, never_fails)
    expected = decode((tmp_path / "noise.png").read_bytes(), (9, 14), "pad", "bicubic")
    assert pixels.shape == (9, 14, 3)
    np.testing.assert_array_equal(pixels, expected)


def test_no_photos_give_nothing():
    assert list(decoded([], SMALL, 4, never_fails)) == []


# ---- reading ahead ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [1, 3, 50])
def test_no_more_than_ahead_are_decoded_before_they_are_asked_for(tmp_path, monkeypatch, ahead):
    decoding, taken = Decoding(), Taken(grey_photos(tmp_path, 12))
    monkeypatch.setattr(stream, "decode", decoding)
    pixels = decoded(taken, SMALL, ahead, never_fails)
    assert taken.count == 0
    given = 0
    for _ in pixels:
        given += 1
        # the one just given was asked for; what was taken beside it, and no more, is decoded meanwhile
        reached = min(12, given - 1 + ahead)
        wait_for(lambda reached=reached: len(decoding.shades) >= reached)
        assert len(decoding.shades) == taken.count == reached
    assert given == 12


def test_photos_that_fail_do_not_make_it_read_further_ahead(tmp_path):
    good = grey_photo(tmp_path, 1)
    missing = [Photo(str(tmp_path / f"missing-{number}")) for number in range(5)]
    taken = Taken([*missing, good, *missing, good, *missing])
    failed: list[Photo] = []
    with closing(decoded(taken, SMALL, 3, lambda photo, reason: failed.append(photo))) as pixels:
        next(pixels)
        assert failed == missing
        assert taken.count == 5 + 3
        next(pixels)
        assert taken.count == 11 + 3


# ---- what fails ------------------------------------------------------------------------------------------


def test_what_fails_is_told_with_its_reason_and_skipped(tmp_path):
    first, last = grey_photo(tmp_path, 1), grey_photo(tmp_path, 2)
    for name, content in (("text", b"Hello, I am no photo at all."), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    bad = [Photo(str(tmp_path / name)) for name in ("text", "missing", "folder", "empty")]
    failed: list[tuple[Photo, str]] = []
    photos = [bad[0], first, *bad[1:3], last, bad[3]]
    got = list(decoded(photos, SMALL, 3, lambda photo, reason: failed.append((photo, reason))))
    assert [photo for photo, _ in got] == [first, last]
    assert [photo for photo, _ in failed] == bad
    for (_, reason), part in zip(
        failed,
        ["not an image of a known format", "cannot be read: No such file", "cannot be read: ", "empty file"],
        strict=True,
    ):
        assert part in reason


def test_a_failure_is_told_at_its_place(tmp_path):
    """Whoever counts photos sees each failure after the photos before it and before those behind it."""
    told: list[str] = []
    photos = [grey_photo(tmp_path, 1), Photo("missing"), grey_photo(tmp_path, 2)]
    for photo, _ in decoded(photos, SMALL, 3, lambda photo, reason: told.append(photo.path)):
        told.append(Path(photo.path).name)
    assert told == ["001.png", "missing", "002.png"]


def test_nothing_but_failures_give_nothing(tmp_path):
    missing = [Photo(str(tmp_path / f"{number}")) for number in range(7)]
    failed: list[Photo] = []
    assert list(decoded(missing, SMALL, 2, lambda photo, reason: failed.append(photo))) == []
    assert failed == missing


def test_a_photo_that_was_exchanged_since_its_digest_was_taken_fails(tmp_path):
    kept, exchanged = grey_photo(tmp_path, 1), grey_photo(tmp_path, 2)
    Path(exchanged.path).write_bytes(Path(kept.path).read_bytes())
    failed: list[tuple[Photo, str]] = []
    got = list(decoded([exchanged, kept], SMALL, 2, lambda photo, reason: failed.append((photo, reason))))
    assert [photo for photo, _ in got] == [kept]
    ((photo, reason),) = failed
    assert photo == exchanged
    assert "changed" in reason
    assert "run again" in reason


def test_without_a_digest_any_bytes_will_do(tmp_path):
    photo = Photo(grey_photo(tmp_path, 7).path)
    ((_, pixels),) = decoded([photo], SMALL, 1, never_fails)
    assert (pixels == 7).all()


def test_an_error_of_the_program_is_not_taken_for_a_bad_photo(tmp_path, monkeypatch):
    def is_wrong(grey: int) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(stream, "decode", Decoding(is_wrong))
    with pytest.raises(ZeroDivisionError):
        list(decoded(grey_photos(tmp_path, 5), SMALL, 3, never_fails))


# ---- stopping early --------------------------------------------------------------------------------------


def test_closing_early_stops_the_threads(tmp_path):
    pixels = decoded(grey_photos(tmp_path, 20), SMALL, 10, never_fails)
    next(pixels)
    assert decoders()
    pixels.close()
    assert decoders() == []


def test_closing_early_drops_what_is_not_begun(tmp_path, monkeypatch):
    decoding = Decoding(lambda grey: time.sleep(0.02))
    monkeypatch.setattr(stream, "decode", decoding)
    taken = Taken(grey_photos(tmp_path, 150))
    pixels = decoded(taken, SMALL, 150, never_fails)
    next(pixels)
    pixels.close()
    decoded_by_then = len(decoding.shades)
    assert taken.count == 150
    assert decoded_by_then < 150  # all of them would take more than a second
    time.sleep(0.05)
    assert len(decoding.shades) == decoded_by_then


def test_an_exception_of_the_reader_stops_the_threads(tmp_path):
    def read_one_and_stop() -> None:
        with closing(decoded(grey_photos(tmp_path, 20), SMALL, 10, never_fails)) as pixels:
            next(pixels)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_one_and_stop()
    assert decoders() == []


def test_an_exception_while_a_failure_is_told_stops_the_threads(tmp_path):
    def refuse(photo: Photo, reason: str) -> None:
        raise RuntimeError(reason)

    photos = [*grey_photos(tmp_path, 3), Photo(str(tmp_path / "missing")), grey_photo(tmp_path, 9)]
    with pytest.raises(RuntimeError, match="cannot be read"):
        list(decoded(photos, SMALL, 5, refuse))


# ---- batches ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [
        (0, 3, []),
        (2, 3, [[0, 1]]),
        (3, 3, [[0, 1, 2]]),
        (7, 3, [[0, 1, 2], [3, 4, 5], [6]]),
        (3, 1, [[0], [1], [2]]),
    ],
)
def test_batches_are_full_but_for_the_last(count, size, expected):
    assert list(batched(range(count), size)) == expected


def test_a_batch_takes_no_more_than_it_gives():
    numbers = itertools.count()
    assert next(batched(numbers, 4)) == [0, 1, 2, 3]
    assert next(numbers) == 4
