"""A file that is no photo is called what it is."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from small_photos import tiff

from featcache.errors import ImageError
from featcache.images.decode import decode


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "x" * 100)
    return buffer.getvalue()


def bands(count: int, dtype=np.uint16) -> bytes:
    return tiff(np.ones((8, 8, count), dtype), 1, t338=(0,) * (count - 1))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"%PDF-1.7\n" + bytes(100), "a PDF document"),
        (b"<!DOCTYPE html>\n<html><body>403</body></html>", "an HTML page"),
        (b"\xef\xbb\xbf\r\n <HTML><head>", "an HTML page"),
        (b"<!-- saved --><html>", "an HTML page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"<?xml version='1.0'?>\n<svg>", "an SVG drawing"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied", "an XML file"),
        (b'{"error": "not found"}', "a JSON file"),
        (zipped("a.jpg"), "a ZIP archive"),
        (zipped("[Content_Types].xml", "word/document.xml"), r"an Office document \(Word\)"),
        (zipped("ppt/slides.xml"), r"an Office document \(PowerPoint\)"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100), "an old Office document"),
        (b"\0\0\0\x18ftypmp42" + bytes(100), r"a video \(MP4"),
        (b"\0\0\0\x14ftypqt  " + bytes(100), r"a video \(MP4 or QuickTime"),
        (b"\0\0\0\x08wide\0\0\0\x08mdat", "QuickTime"),
        (b"RIFF\0\0\0\0AVI LIST", r"a video \(AVI"),
        (b"\x1aE\xdf\xa3" + bytes(100), "a video"),
        (b"8BPS" + bytes(100), "a Photoshop document"),
        (b"\0\0\0\x18ftypcrx " + bytes(100), "a RAW photo.*CR3"),
        (b"FUJIFILMCCD-RAW 0201" + bytes(100), "a RAW photo.*Fujifilm"),
        (b"II*\0\x10\0\0\0CR\x02\0" + bytes(100), "a RAW photo.*CR2"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (bytes(5000), "nothing but zeros"),
        (b"Hello, I am no photo at all.", "not an image of a known format"),
        (b"\xff\xd8\xff", "a JPEG photo whose header is damaged"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"\0\0\0\x18ftypavif" + bytes(100), "AVIF"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100), "JPEG 2000"),
        (bands(13), "a TIFF of 13 bands of 16 bit; save three of them as RGB"),
        (bands(5, np.uint8), "a TIFF of 5 bands of 8 bit"),
        (tiff(np.ones((8, 8), np.int16), 1), "^signed 16 bit values"),
        (tiff(np.ones((8, 8), np.int16), 1, ">"), "^signed 16 bit values"),
        (tiff(np.ones((8, 8), np.float32), 1), "^32 bit floating point values"),
        (tiff(np.ones((8, 8), np.uint32), 1), "^32 bit values"),
        (tiff(np.ones((8, 8), np.float64), 1), "64 bit floating point"),
        (tiff(np.ones((8, 8, 3), np.float32), 2), "3 bands of 32 bit floating point"),
    ],
)
def test_the_reason_names_the_file(data, reason):
    with pytest.raises(ImageError, match=reason) as caught:
        decode(data, (8, 8))
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)
