"""What a file is follows from its first bytes, whatever its name."""

from __future__ import annotations

import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
from PIL import Image
from small_photos import encode, quarters, tiff

from featcache.errors import ImageError
from featcache.images.decode import decode
from featcache.images.formats import FORMATS, kind_of

WRITTEN = {
    "JPEG": ("JPEG", {}),
    "MPO": ("JPEG", {}),
    "PNG": ("PNG", {}),
    "GIF": ("GIF", {}),
    "BMP": ("BMP", {}),
    "WEBP": ("WEBP", {}),
    "TIFF": ("TIFF", {}),
    "AVIF": ("AVIF", {}),
    "JPEG2000": ("JPEG2000", {}),
    "PPM": ("PPM", {}),
}


@pytest.mark.parametrize("format_", WRITTEN)
def test_kinds(format_):
    kind, options = WRITTEN[format_]
    assert kind_of(encode(quarters(), format_, **options)) == kind
    assert kind in FORMATS


def test_files_that_are_no_photos_have_no_kind():
    for data in (b"", b"P", b"P7\n", b"PK\x03\x04", b"RIFF\0\0\0\0AVI ", b"\0\0\0\x18ftypmp42" + bytes(20)):
        assert kind_of(data) == ""


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"P1\n# text\n2 2\n0 1\n1 0\n", [255, 0, 0, 255]),
        (b"P4\n2 2\n\x40\x80", [255, 0, 0, 255]),
        (b"P2 2 2 3\n0 1 2 3\n", [0, 85, 170, 255]),
        (b"P3 1 4 255 0 0 0 9 9 9 99 99 99 255 255 255 ", [0, 9, 99, 255]),
    ],
)
def test_every_kind_of_ppm_is_read(data, expected):
    size = (4, 1) if data.startswith(b"P3") else (2, 2)
    assert decode(data, size)[..., 0].ravel().tolist() == expected


def test_a_compatible_brand_makes_it_avif():
    data = bytearray(encode(quarters(), "AVIF"))
    assert data[8:12] == b"avif"
    data[8:12] = b"mif1"
    assert kind_of(bytes(data)) == "AVIF"
    assert decode(bytes(data), (32, 48)).shape == (32, 48, 3)


def test_heic_is_read_where_its_reader_is_installed():
    heif = pytest.importorskip("pillow_heif")
    import io

    exif = Image.Exif()
    exif[0x0112] = 6
    buffer, registered = io.BytesIO(), set(Image.OPEN)
    lying = quarters(320, 480).transpose(Image.Transpose.ROTATE_90)
    heif.from_pillow(lying).save(buffer, quality=95, exif=exif.tobytes())
    pixels = decode(buffer.getvalue(), (32, 48)).astype(int)
    assert np.abs(pixels - np.asarray(quarters(32, 48)))[4:12, 4:20].max() < 30
    assert set(Image.OPEN) == registered  # the registry is that of the user's process


def test_heic_without_its_reader_says_what_to_install():
    data = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)
    with (
        mock.patch.dict(sys.modules, {"pillow_heif": None, "pillow_heif.as_plugin": None}),
        pytest.raises(ImageError, match=r"a HEIC photo; run `pip install 'featcache\[heic\]'`"),
    ):
        decode(data, (8, 8))


def test_plugins_are_imported_when_they_are_needed():
    code = (
        "import sys; from featcache.images.decode import decode;"
        "wanted = {'PIL.AvifImagePlugin', 'PIL.Jpeg2KImagePlugin', 'pillow_heif'};"
        "sys.exit(', '.join(wanted & sys.modules.keys()) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == ""


@pytest.mark.parametrize("tags", [{"t50706": (1, 4, 0, 0)}, {"t254": 1, "t330": 8}])
def test_a_raw_photo_is_not_taken_for_its_thumbnail(tags):
    data = tiff(np.zeros((8, 8, 3), np.uint8), 2, **tags)
    with pytest.raises(ImageError, match="a RAW photo of a camera"):
        decode(data, (8, 8))
