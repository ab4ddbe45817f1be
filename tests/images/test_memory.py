"""Photos in memory give the pixels of their files, or a reason."""

import io
import tempfile

import numpy as np
import pytest
from PIL import Image

from featcache.errors import ImageError
from featcache.images import memory
from featcache.images.decode import Decoding, decode
from featcache.images.memory import content_of, decode_content, fitted, is_in_memory

HOW = ((24, 32), "stretch", "bilinear")


def picture(mode="RGB", size=(50, 40)):
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), np.uint8)
    return Image.fromarray(values, "RGBA").convert(mode)


def file_of(image, format_name="PNG", **more):
    file = io.BytesIO()
    image.save(file, format_name, **more)
    return file.getvalue()


def spooled(data):
    file = tempfile.SpooledTemporaryFile()  # noqa: SIM115
    file.write(data)
    return file


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_all_forms_of_a_photo_give_the_pixels_of_its_file(mode, resize):
    data, how = file_of(picture(mode)), ((24, 32), resize, "bilinear")
    expected = decode(data, *how)
    forms = [data, bytearray(data), memoryview(data), io.BytesIO(data), spooled(data)]
    for form in [*forms, Image.open(io.BytesIO(data)), picture(mode)]:
        assert is_in_memory(form)
        assert np.array_equal(decode_content(content_of(form), Decoding(*how)), expected), type(form)


@pytest.mark.parametrize(("mode", "shape"), [("RGB", (40, 50, 3)), ("RGBA", (40, 50, 4)), ("L", (40, 50))])
def test_an_array_of_any_size_gives_the_pixels_of_its_picture(mode, shape):
    array = np.asarray(picture(mode))
    assert array.shape == shape
    expected = decode(file_of(picture(mode)), *HOW)
    assert np.array_equal(decode_content(array, Decoding(*HOW)), expected)
    assert np.array_equal(decode_content(array[:, ::-1][:, ::-1], Decoding(*HOW)), expected)  # not contiguous
    if mode == "L":
        assert np.array_equal(decode_content(array[..., None], Decoding(*HOW)), expected)


def test_pixels_of_the_models_size_stay_as_they_are():
    rows = np.random.default_rng(1).integers(0, 256, (3, 24, 32, 3), np.uint8)
    assert fitted(rows, Decoding(*HOW)) is rows
    for resize in ("stretch", "crop", "pad"):
        assert np.array_equal(decode_content(rows[1], Decoding((24, 32), resize, "lanczos")), rows[1])
    larger = np.random.default_rng(1).integers(0, 256, (2, 48, 32, 3), np.uint8)
    assert np.array_equal(fitted(larger, Decoding(*HOW))[1], decode_content(larger[1], Decoding(*HOW)))


def test_the_orientation_of_a_pillow_image_is_applied_and_the_image_is_not_changed():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = file_of(picture(), exif=exif)
    image = Image.open(io.BytesIO(data))
    assert np.array_equal(decode_content(image, Decoding(*HOW)), decode(data, *HOW))
    assert not np.array_equal(decode_content(image, Decoding(*HOW)), decode(file_of(picture()), *HOW))
    assert (image.size, image.getexif()[0x0112]) == ((50, 40), 6)


def test_a_file_object_is_read_from_its_beginning_and_can_be_given_again():
    file = spooled(file_of(picture()))
    assert file.tell() > 0
    assert content_of(file) == content_of(file) == file_of(picture())


class Upload:
    async def read(self, size=-1):
        return b""


def closed():
    file = io.BytesIO(b"x")
    file.close()
    return file


@pytest.mark.parametrize(
    ("thing", "reason"),
    [
        (b"", "empty"),
        (b"no photo", "not an image"),
        (closed(), "closed file"),
        (io.StringIO("text"), "gives str and not bytes: open files with 'rb'"),
        (Upload(), "gives coroutine and not bytes.*attribute file"),
        (None, "None is no photo: give a path, bytes"),
        (7, "7 is no photo"),
        (np.zeros((4, 4, 3), np.float32), r"dtype float32 is no photo.*\(255 \* array\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"shape \(2, 4, 4, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\)"),
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\)"),
        (Image.new("F", (4, 4)), "no fixed range"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_photo_has_a_reason(thing, reason):
    with pytest.raises(ImageError, match=reason):
        decode_content(content_of(thing), Decoding(*HOW))


def test_photos_in_memory_are_bounded_like_files(monkeypatch):
    data = file_of(picture())
    monkeypatch.setattr(memory, "MOST_BYTES", len(data) - 1)
    for thing in (data, io.BytesIO(data)):
        with pytest.raises(ImageError, match="bytes; at most"):
            decode_content(content_of(thing), Decoding(*HOW))
    for thing in (picture(), np.asarray(picture())):
        with pytest.raises(ImageError, match="50×40 pixels"):
            decode_content(thing, Decoding(*HOW, max_pixels=100))
