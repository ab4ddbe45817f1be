"""Why a file cannot be decoded, in words: what it is, and what to do with it."""

from __future__ import annotations

import re

from PIL import Image, UnidentifiedImageError

from featcache.images import tiff
from featcache.images.formats import brands_of, kind_of

_KNOWN = "JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF, JPEG 2000, PPM or HEIC"
_NAMES = {"WEBP": "WebP", "JPEG2000": "JPEG 2000", "HEIF": "HEIC"}

_CONVERT = "save it as JPEG or PNG"
_RAW = f"a RAW photo of a camera ({{}}); {_CONVERT}"
_BY_FIRST_BYTES = (
    (b"%PDF", f"a PDF document; {_CONVERT}"),
    (b"%!PS", f"a PostScript document; {_CONVERT}"),
    (b"8BPS", f"a Photoshop document; {_CONVERT}"),
    (b"gimp xcf", f"a GIMP document; {_CONVERT}"),
    (b"\0\0\x01\0", f"a Windows icon; {_CONVERT}"),
    (b"\x76\x2f\x31\x01", f"an OpenEXR file; {_CONVERT}"),
    (b"#?RADIANCE", f"a Radiance HDR file; {_CONVERT}"),
    (b"\xff\x0a", f"a JPEG XL photo; {_CONVERT}"),
    (b"\0\0\0\x0cJXL ", f"a JPEG XL photo; {_CONVERT}"),
    (b"FUJIFILMCCD-RAW", _RAW.format("Fujifilm RAF")),
    (b"IIRO", _RAW.format("Olympus ORF")),
    (b"MMOR", _RAW.format("Olympus ORF")),
    (b"IIU\0", _RAW.format("Panasonic RW2")),
    (b"\0MRM", _RAW.format("Minolta MRW")),
    (b"FOVb", _RAW.format("Sigma X3F")),
    (b"SIMPLE  =", f"a FITS file; {_CONVERT}"),
    (b"\x89HDF", f"an HDF5 file; {_CONVERT}"),
    (b"\x93NUMPY", f"a NumPy array; {_CONVERT}"),
    (b"Rar!", "a RAR archive; unpack it"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it"),
    (b"\x1f\x8b", "a gzip archive; unpack it"),
    (b"\x1aE\xdf\xa3", "a video (Matroska or WebM); extract frames from it"),
    (b"\0\0\x01\xba", "a video (MPEG); extract frames from it"),
    (b"\0\0\x01\xb3", "a video (MPEG); extract frames from it"),
    (b"FLV\x01", "a video (Flash); extract frames from it"),
    (b"0&\xb2u\x8ef\xcf\x11", "a video (Windows Media); extract frames from it"),
    (b"OggS", "an Ogg file, sound or video"),
    (b"ID3", "a sound file (MP3)"),
    (b"\xd0\xcf\x11\xe0", "an old Office document; save its pictures as JPEG or PNG"),
    (b"version https://git-lfs", "a Git LFS pointer and not the file itself; run `git lfs pull`"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a Windows program or library"),
)
_RIFF = {b"AVI ": "a video (AVI); extract frames from it", b"WAVE": "a sound file (WAV)"}
_OFFICE = ((b"word/", "Word"), (b"xl/", "Excel"), (b"ppt/", "PowerPoint"))
_MARKUP = re.compile(
    rb"^\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+)?(\w+)", re.IGNORECASE | re.DOTALL
)


def reason_of(error: Exception, data: bytes) -> str:
    """Say in one line why a photo could not be decoded.

    Parameters
    ----------
    error : Exception
        Raised while the photo was decoded.
    data : bytes
        The file.
    """
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    if isinstance(error, Image.DecompressionBombError):
        return "larger than Image.MAX_IMAGE_PIXELS, which Pillow allows in this process; set it to None"
    kind = kind_of(data)
    if isinstance(error, UnidentifiedImageError):
        return (
            _damaged_header(kind, data)
            if kind
            else what_it_is(data) or f"not an image of a known format ({_KNOWN})"
        )
    text = " ".join(str(error).split())[:150] or type(error).__name__
    cut_off = isinstance(error, EOFError) or "truncated" in text.lower()
    name = f" ({_NAMES.get(kind, kind)})" if kind else ""
    return f"{'truncated' if cut_off else 'damaged'}: {text}{name}"


def what_it_is(data: bytes) -> str:
    """Name a file that is no photo of a known format, and say what to do; empty where it is unknown."""
    for prefix, what in _BY_FIRST_BYTES:
        if data.startswith(prefix):
            return what
    if not any(data[:4096]):
        return "nothing but zeros; copy or download it again"
    if data[:4] == b"RIFF":
        return _RIFF.get(data[8:12], "")
    if data[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _what_zip(data)
    if data[4:8] == b"ftyp":
        return _what_media(data)
    if data[4:8] in (b"moov", b"mdat", b"wide", b"skip", b"free"):
        return "a video (QuickTime); extract frames from it"
    return _what_text(data)


def _damaged_header(kind: str, data: bytes) -> str:
    if kind == "TIFF" and (reason := _why_tiff(data)):
        return reason
    return f"a {_NAMES.get(kind, kind)} photo whose header is damaged, or of a kind that Pillow does not read"


def _why_tiff(data: bytes) -> str:
    """Say what is unusual in a TIFF that Pillow does not read; empty where nothing is."""
    facts = tiff.facts_of(data)
    depth = (
        f"{'signed ' if facts.signed else ''}{facts.bits} bit{' floating point' if facts.floating else ''}"
    )
    if facts.samples > 4:
        return f"a TIFF of {facts.samples} bands of {depth}; save three of them as RGB"
    if depth not in ("1 bit", "8 bit", "16 bit") or facts.samples == 2:
        return f"a TIFF of {facts.samples} bands of {depth}; save it with 8 or 16 bit"
    return ""


def _what_zip(data: bytes) -> str:
    for part, program in _OFFICE:
        if part in data[:4096] or part in data[-4096:]:
            return f"an Office document ({program}); save its pictures as JPEG or PNG"
    return "a ZIP archive; unpack it"


def _what_media(data: bytes) -> str:
    brand = next(brands_of(data))
    if brand == b"crx ":
        return _RAW.format("Canon CR3")
    return "a video (MP4 or QuickTime); extract frames from it"


def _what_text(data: bytes) -> str:
    start = data[:1024].removeprefix(b"\xef\xbb\xbf")
    if markup := _MARKUP.match(start):
        name = markup[1].decode().lower()
        if name in ("html", "head", "body", "script", "meta", "title"):
            return "an HTML page and not a photo; download the photo itself"
        return f"an SVG drawing; {_CONVERT}" if name == "svg" else f"an XML file ({name})"
    if start.lstrip()[:1] in (b"{", b"["):
        return "a JSON file"
    return ""
