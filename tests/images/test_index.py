"""Digests are used only for files that have not changed."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from featcache.images.index import MARGIN_NS, DigestIndex, FileState


@pytest.fixture
def index(tmp_path):
    with DigestIndex(tmp_path / "cache" / "digests.sqlite") as opened:
        yield opened


def photo(folder, name="a.jpg", content=b"one"):
    path = folder / name
    path.write_bytes(content)
    return str(path)


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).digest()


def record(index, *paths, later=MARGIN_NS + 10**9):
    """Record files as if they had been read long after they were written."""
    states = [(path, FileState.of(Path(path).stat()), sha256(path)) for path in paths]
    index.record(states, time.time_ns() + later)
    index.close()


def test_an_unchanged_file_is_found(index, tmp_path):
    path = photo(tmp_path)
    record(index, path)
    assert index.find([path]) == {path: sha256(path)}


def test_nothing_is_found_and_nothing_made_before_a_recording(index, tmp_path):
    assert index.find([photo(tmp_path)]) == {}
    assert not (tmp_path / "cache").exists()


def test_a_file_read_within_the_clocks_step_of_its_change_is_not_recorded(index, tmp_path):
    path = photo(tmp_path)
    record(index, path, later=0)
    assert index.find([path]) == {}


def test_other_bytes_of_the_same_size_with_the_old_times_are_noticed(index, tmp_path):
    path = photo(tmp_path, content=b"one")
    record(index, path)
    before = Path(path).stat()
    with Path(path).open("r+b") as file:
        file.write(b"two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert Path(path).stat().st_mtime_ns == before.st_mtime_ns
    assert index.find([path]) == {}


def test_files_that_change_places_are_noticed(index, tmp_path):
    first, second = photo(tmp_path, "a.jpg", b"one"), photo(tmp_path, "b.jpg", b"two")
    times = (10**18, 10**18)
    os.utime(first, ns=times)
    os.utime(second, ns=times)
    record(index, first, second)
    Path(first).rename(tmp_path / "aside")
    Path(second).rename(first)
    (tmp_path / "aside").rename(second)
    assert index.find([first, second]) == {}


def test_a_missing_file_and_an_impossible_name_are_left_out(index, tmp_path):
    path = photo(tmp_path)
    record(index, path)
    Path(path).unlink()
    assert index.find([path, str(tmp_path / ("x" * 5000)), "nul\0"]) == {}


def test_relative_paths_and_names_that_are_not_utf8(index, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    odd = photo(tmp_path, os.fsdecode(b"caf\xe9.jpg"))
    record(index, odd)
    assert index.find([Path(odd).name]) == {Path(odd).name: sha256(odd)}


def test_a_damaged_index_is_made_anew_and_said(tmp_path):
    path, file, notes = photo(tmp_path), tmp_path / "digests.sqlite", []
    file.write_bytes(b"no database" * 1000)
    with DigestIndex(file, notes.append) as index:
        assert index.find([path]) == {}
        assert "damaged" in notes[0]
        record(index, path)
        assert index.find([path]) == {path: sha256(path)}


def test_an_index_that_cannot_be_opened_is_empty_and_said(tmp_path):
    path, notes = photo(tmp_path), []
    (tmp_path / "digests.sqlite").mkdir()
    with DigestIndex(tmp_path / "digests.sqlite", notes.append) as index:
        record(index, path)
        assert index.find([path]) == {}
    assert all("cannot be" in note for note in notes)
    assert len(notes) == 1  # and not one for every folder or batch


def test_processes_share_an_index(index, tmp_path):
    paths = [photo(tmp_path, f"{number}.jpg", str(number).encode()) for number in range(40)]
    program = """
import hashlib, os, sys, time
from pathlib import Path
from featcache.images.index import DigestIndex, FileState
with DigestIndex(Path(sys.argv[1])) as index:
    for path in sys.argv[2:]:
        state = FileState.of(Path(path).stat())
        digest = hashlib.sha256(Path(path).read_bytes()).digest()
        index.record([(path, state, digest)], time.time_ns() + 10**10)
"""
    file = str(tmp_path / "cache" / "digests.sqlite")
    writers = [subprocess.Popen([sys.executable, "-c", program, file, *paths[k::4]]) for k in range(4)]
    assert [writer.wait() for writer in writers] == [0] * 4
    assert index.find(paths) == {path: sha256(path) for path in paths}
