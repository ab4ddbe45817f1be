"""Mutated photos of every format: pixels or a reason in one line, and no crash, hang or traceback."""

import io
import warnings

import numpy as np
import pytest
from fuzzing import mutations, outcomes
from small_photos import deep_png, encode, quarters, tiff

from featcache.images.decode import decode

RAMP = np.linspace(0, 65535, 32 * 48).astype(np.uint16).reshape(32, 48)


def heic() -> bytes:
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(quarters()).save(buffer := io.BytesIO(), quality=80)
    return buffer.getvalue()


GOOD = {
    "avif": lambda: encode(quarters(), "AVIF", quality=80),
    "heic": heic,
    "jpeg 2000": lambda: encode(quarters(), "JPEG2000"),
    "jpeg 2000 codestream": lambda: encode(quarters(), "JPEG2000", no_jp2=True),
    "ppm": lambda: encode(quarters(), "PPM"),
    "pgm of 16 bits": lambda: b"P5 48 32 4095\n" + (RAMP >> 4).astype(">u2").tobytes(),
    "plain ppm": lambda: b"P3 8 8 255\n" + b"12 34 56 " * 64,
    "png of 16 bits": lambda: deep_png(np.stack([RAMP] * 3, -1)),
    "tiff where zero is white": lambda: tiff(RAMP, 0),
    "tiff of pages": lambda: encode(quarters(), "TIFF", save_all=True, append_images=[quarters(9, 9)]),
    "jpeg with a profile": lambda: encode(quarters(), "JPEG", icc_profile=_profile()),
}


def _profile() -> bytes:
    from test_profiles import profile

    return profile()


def read(data: bytes) -> str:
    pixels = decode(data, (9, 7), range="minmax", max_pixels=2_000_000)
    return "pixels" if pixels.shape == (9, 7, 3) and pixels.dtype == np.uint8 else "something else"


def assert_harmless(kind: str, count: int, seed: int) -> None:
    data = GOOD[kind]()
    assert read(data) == "pixels"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork, of a process with threads
        found = outcomes(mutations(data, count, seed), read, "pixels")
    assert found["same"] + found["refused"] == sum(found.values()), found
    assert found["refused"], "the mutations changed nothing that matters"


@pytest.mark.parametrize("kind", GOOD)
def test_a_few_mutated_photos(kind):
    assert_harmless(kind, 25, 1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", GOOD)
def test_many_mutated_photos(kind):
    assert_harmless(kind, 320, 2)
