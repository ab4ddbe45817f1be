"""Photos are regular files; whatever else stands under their name is refused at once, with the reason."""

import hashlib
import os
from pathlib import Path

import pytest

from featcache.errors import ImageError
from featcache.images import source
from featcache.images.index import FileState
from featcache.images.source import digest_of, digest_photo, read_photo, read_with_state, why_not_opened


def test_bytes_and_digest_are_those_of_the_file(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"x" * (3 << 20))
    assert read_photo(str(path)) == path.read_bytes()
    digest = hashlib.sha256(path.read_bytes()).digest()
    assert digest_of(path.read_bytes()) == digest
    assert digest_photo(str(path)) == (digest, FileState.of(path.stat()))
    assert read_with_state(str(path)) == (path.read_bytes(), FileState.of(path.stat()))


def pipe(folder):
    os.mkfifo(folder / "pipe.jpg")
    return str(folder / "pipe.jpg")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (pipe, "not a regular file"),
        (lambda _: "/dev/zero", "not a regular file"),
        (str, "folder"),
        (lambda folder: str(folder / "none"), "no such file"),
        (lambda folder: str(folder / ("x" * 5000)), "too long"),
        (lambda folder: str(folder / "a\0b"), "null"),
    ],
    ids=["pipe", "device", "folder", "missing", "long", "NUL"],
)
def test_what_is_no_file_is_refused_at_once(tmp_path, name, reason):
    path = name(tmp_path)
    with pytest.raises(ImageError, match=f"cannot be read: .*{reason}"):
        read_photo(path)
    with pytest.raises(ImageError, match=f"cannot be read: .*{reason}"):
        digest_photo(path)
    assert reason in str(why_not_opened(path))


def test_a_file_that_can_be_opened_has_no_reason_and_a_name_that_cannot_be_stored_has(tmp_path):
    path, odd = tmp_path / "photo.jpg", str(tmp_path / os.fsdecode(b"caf\xe9.jpg"))
    path.write_bytes(b"x")
    Path(odd).write_bytes(b"x")
    assert why_not_opened(str(path)) is None
    assert "not UTF-8" in str(why_not_opened(odd))


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "MOST_BYTES", 10)
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"x" * 11)
    with pytest.raises(ImageError, match="11 bytes; at most 10"):
        read_photo(str(path))
