"""Photos are regular files; whatever else stands under their name is refused at once, with the reason."""

import hashlib
import os

import pytest

from featcache.errors import ImageError
from featcache.images import source
from featcache.images.source import digest_of, digest_photo, read_photo


def test_bytes_and_digest_are_those_of_the_file(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"x" * (3 << 20))
    assert read_photo(str(path)) == path.read_bytes()
    assert (
        digest_photo(str(path)) == digest_of(path.read_bytes()) == hashlib.sha256(path.read_bytes()).digest()
    )


def pipe(folder):
    os.mkfifo(folder / "pipe.jpg")
    return str(folder / "pipe.jpg")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (pipe, "not a regular file"),
        (lambda _: "/dev/zero", "not a regular file"),
        (str, "folder"),
        (lambda folder: str(folder / "none"), "No such file"),
        (lambda folder: str(folder / ("x" * 5000)), "too long"),
        (lambda folder: str(folder / "a\0b"), "null"),
    ],
    ids=["pipe", "device", "folder", "missing", "long", "NUL"],
)
def test_what_is_no_file_is_refused_at_once(tmp_path, name, reason):
    path = name(tmp_path)
    with pytest.raises(ImageError, match=f"cannot be read: .*{reason}"):
        read_photo(path)
    with pytest.raises((OSError, ValueError), match=reason):
        digest_photo(path)


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "MOST_BYTES", 10)
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"x" * 11)
    with pytest.raises(ImageError, match="11 bytes; at most 10"):
        read_photo(str(path))
