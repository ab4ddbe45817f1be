"""Photos to features: in order, not too far ahead, a reason for each that fails, no thread left behind."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featcache import featurize as module
from featcache.bases.base import stored
from featcache.errors import BaseNetworkError, FeaturesError
from featcache.featurize import Batch, Photo, Seconds, featurize
from featcache.images.decode import Decoded, decode
from featcache.images.source import digest_of
from featcache.recipe import BaseSettings


class FakeBase:
    """Stands in for a base: a photo's features are its brightest pixel and their number."""

    def __init__(self, batch_size: int = 2, parallel: int = 2, **settings: object):
        self.settings = BaseSettings(image_size=8, **settings).model_copy(update={"batch_size": batch_size})
        self.parallel = parallel
        self.prepared = 0
        self.seen: list[np.ndarray] = []

    def prepare(self) -> None:
        self.prepared += 1

    def features(self, pixels: np.ndarray) -> np.ndarray:
        self.seen.append(pixels)
        return np.stack([pixels.max(axis=(1, 2, 3)), np.full(len(pixels), pixels[0].size)], axis=1)


def grey_photo(folder: Path, grey: int) -> Photo:
    """Write a photo that is known by its shade."""
    file = folder / f"{grey:03}.png"
    Image.new("RGB", (12, 10), (grey, grey, grey)).save(file)
    return Photo(str(file), digest_of(file.read_bytes()))


def grey_photos(folder: Path, count: int) -> list[Photo]:
    return [grey_photo(folder, grey) for grey in range(count)]


class Taken(list):
    """Photos that remember up to which they were taken."""

    count = 0

    def __getitem__(self, index):
        self.count = max(self.count, index.indices(len(self))[1])
        return super().__getitem__(index)


class Decoding:
    """Stands in for `decode_views`: remembers the shades it was given, in the order in which it had them."""

    def __init__(self, before: Callable[[int], object] = lambda grey: None):
        self.shades: list[int] = []
        self._before = before

    def __call__(self, data: bytes, *settings: object) -> Decoded:
        grey = int(np.asarray(Image.open(io.BytesIO(data)))[0, 0, 0])
        self._before(grey)
        self.shades.append(grey)
        return Decoded([np.full((8, 8, 3), grey, np.uint8)], None)


def shades(batches: list[Batch]) -> list[int]:
    return [int(row[0]) for batch in batches if batch.features is not None for row in batch.features]


def workers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("featurize")]


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("waited for 10 s in vain")


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert workers() == []


# ---- order and settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch_size", "parallel"), [(1, 1), (3, 2), (7, 4), (20, 2), (100, 3)])
def test_photos_come_in_order_each_with_its_own_features(tmp_path, batch_size, parallel):
    photos = grey_photos(tmp_path, 20)
    batches = list(featurize(photos, FakeBase(batch_size, parallel)))
    assert [photo for batch in batches for photo in batch.photos] == photos
    assert [photo for batch in batches for photo in batch.asked] == photos
    assert shades(batches) == list(range(20))
    assert all(len(batch.asked) == batch_size for batch in batches[:-1])


def test_a_batch_that_takes_long_is_still_given_first(tmp_path, monkeypatch):
    second_is_done = threading.Event()

    def let_the_second_pass(grey: int) -> None:
        if grey == 0:
            assert second_is_done.wait(10)
        if grey == 2:  # the other worker has put the second batch away before it takes the third
            second_is_done.set()

    decoding = Decoding(let_the_second_pass)
    monkeypatch.setattr(module, "decode_views", decoding)
    photos = grey_photos(tmp_path, 4)
    assert shades(list(featurize(photos, FakeBase(batch_size=1)))) == [0, 1, 2, 3]
    assert decoding.shades.index(1) < decoding.shades.index(0)


def test_pixels_are_those_of_the_decoder_with_the_bases_settings(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    base = FakeBase(resize="pad", interpolation="bicubic")
    base.settings = base.settings.model_copy(update={"image_size": (9, 14)})
    list(featurize([Photo(str(tmp_path / "noise.png"))], base))
    expected = decode((tmp_path / "noise.png").read_bytes(), (9, 14), "pad", "bicubic")
    ((pixels,),) = base.seen
    np.testing.assert_array_equal(pixels, expected)


def test_no_photos_give_nothing():
    base = FakeBase()
    assert list(featurize([], base)) == []
    assert base.prepared == 0


# ---- reading ahead ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch_size", "parallel"), [(1, 1), (2, 2), (1, 4)])
def test_only_a_few_batches_are_made_before_they_are_asked_for(tmp_path, monkeypatch, batch_size, parallel):
    decoding, photos = Decoding(), Taken(grey_photos(tmp_path, 24))
    monkeypatch.setattr(module, "decode_views", decoding)
    batches = featurize(photos, FakeBase(batch_size, parallel))
    assert photos.count == 0
    given = 0
    for batch in batches:
        # beside the one just given, one for each worker and one more is made meanwhile
        reached = min(24, given + (parallel + 2) * batch_size)
        wait_for(lambda reached=reached: len(decoding.shades) >= reached)
        time.sleep(0.01)
        assert len(decoding.shades) == photos.count == reached
        given += len(batch.photos)
    assert given == 24


# ---- what fails ------------------------------------------------------------------------------------------


def test_what_fails_is_told_with_its_reason_and_the_rest_of_its_batch_is_kept(tmp_path):
    first, last = grey_photo(tmp_path, 1), grey_photo(tmp_path, 2)
    for name, content in (("text", b"Hello, I am no photo at all."), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    text, missing, folder, empty = (
        Photo(str(tmp_path / name)) for name in ("text", "missing", "folder", "empty")
    )
    one, two, three = featurize([text, first, missing, folder, last, empty], FakeBase(batch_size=2))
    assert [batch.photos for batch in (one, two, three)] == [[first], [], [last]]
    assert [[photo for photo, _ in batch.failed] for batch in (one, two, three)] == [
        [text],
        [missing, folder],
        [empty],
    ]
    assert shades([one, two, three]) == [1, 2]
    assert two.features is None
    for (_, reason), part in zip(
        [*one.failed, *two.failed, *three.failed],
        ["not an image of a known format", "cannot be read: no such file", "cannot be read: ", "empty file"],
        strict=True,
    ):
        assert part in reason


def test_the_network_is_not_built_when_no_photo_can_be_decoded(tmp_path):
    missing, base = [Photo(str(tmp_path / f"{number}")) for number in range(7)], FakeBase()
    batches = list(featurize(missing, base))
    assert [photo for batch in batches for photo, _ in batch.failed] == missing
    assert base.prepared == 0
    assert base.seen == []


def test_a_photo_that_was_exchanged_since_its_digest_was_taken_fails(tmp_path):
    kept, exchanged = grey_photo(tmp_path, 1), grey_photo(tmp_path, 2)
    Path(exchanged.path).write_bytes(Path(kept.path).read_bytes())
    (batch,) = featurize([exchanged, kept], FakeBase())
    assert batch.photos == [kept]
    ((photo, reason),) = batch.failed
    assert photo == exchanged
    assert "changed" in reason
    assert "run again" in reason


def test_without_a_digest_any_bytes_will_do(tmp_path):
    photo = Photo(grey_photo(tmp_path, 7).path)
    assert shades(list(featurize([photo], FakeBase()))) == [7]


def test_an_error_of_the_program_is_not_taken_for_a_bad_photo(tmp_path, monkeypatch):
    def is_wrong(grey: int) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(module, "decode_views", Decoding(is_wrong))
    with pytest.raises(ZeroDivisionError):
        list(featurize(grey_photos(tmp_path, 5), FakeBase()))


def test_a_base_that_cannot_be_built_ends_it(tmp_path):
    class Broken(FakeBase):
        def prepare(self) -> None:
            raise BaseNetworkError("no such network")

    with pytest.raises(BaseNetworkError, match="no such network"):
        list(featurize(grey_photos(tmp_path, 9), Broken()))


def test_a_value_that_cannot_be_stored_names_a_photo_of_its_batch_and_what_came_before_is_given(tmp_path):
    class Overflowing(FakeBase):
        def features(self, pixels: np.ndarray) -> np.ndarray:
            return stored(np.where(pixels[:, 0, 0, :1] >= 4, 1e6, 1.0), "float16")

    batches = featurize(grey_photos(tmp_path, 8), Overflowing(batch_size=3))
    assert next(batches).features.dtype == np.float16
    with pytest.raises(FeaturesError, match=r"--dtype float32.*003\.png"):
        next(batches)


# ---- times -----------------------------------------------------------------------------------------------


def test_the_seconds_of_each_step_are_told_apart_and_add_up(tmp_path, monkeypatch):
    class Slow(FakeBase):
        def prepare(self) -> None:
            time.sleep(0.1)  # building the network is no inference

        def features(self, pixels: np.ndarray) -> np.ndarray:
            time.sleep(0.03)
            return super().features(pixels)

    monkeypatch.setattr(module, "decode_views", Decoding(lambda grey: time.sleep(0.02)))
    photos = [*grey_photos(tmp_path, 3), Photo(str(tmp_path / "missing"))]
    total = Seconds()
    started = time.perf_counter()
    for batch in featurize(photos, Slow(batch_size=2, parallel=1)):
        total.add(batch.seconds)
    wall = time.perf_counter() - started
    assert total.reading > 0
    assert total.decoding >= 3 * 0.02
    assert total.inference >= 2 * 0.03
    assert total.reading + total.decoding + total.inference <= wall - 2 * 0.1


def test_a_photo_that_fails_to_decode_costs_decoding_too(tmp_path, monkeypatch):
    def slow_failure(*_: object) -> None:
        time.sleep(0.02)
        raise module.ImageError("broken")

    monkeypatch.setattr(module, "decode_views", slow_failure)
    (batch,) = featurize([grey_photo(tmp_path, 1)], FakeBase())
    assert batch.seconds.decoding >= 0.02
    assert batch.seconds.inference == 0


# ---- stopping early --------------------------------------------------------------------------------------


def test_closing_early_stops_the_threads(tmp_path):
    batches = featurize(grey_photos(tmp_path, 20), FakeBase())
    next(batches)
    assert workers()
    batches.close()
    assert workers() == []


def test_closing_early_drops_what_is_not_begun(tmp_path, monkeypatch):
    decoding = Decoding(lambda grey: time.sleep(0.05))
    monkeypatch.setattr(module, "decode_views", decoding)
    photos = Taken(grey_photos(tmp_path, 60))
    batches = featurize(photos, FakeBase(batch_size=10, parallel=1))
    next(batches)
    batches.close()
    decoded_by_then = len(decoding.shades)
    assert photos.count == 30
    assert decoded_by_then < 30  # a third batch waited for the only worker, and was dropped
    time.sleep(0.15)
    assert len(decoding.shades) == decoded_by_then


def test_an_exception_of_the_reader_stops_the_threads(tmp_path):
    def read_one_and_stop() -> None:
        with closing(featurize(grey_photos(tmp_path, 20), FakeBase())) as batches:
            next(batches)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_one_and_stop()
    assert workers() == []
