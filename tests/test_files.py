"""A folder is written whole or not at all, like a file."""

import os
import socket
import subprocess
import sys

import pytest

from featcache.errors import StoreError
from featcache.files import folder_written_whole, remove_left_behind


def write(folder, text):
    with folder_written_whole(folder) as aside:
        (aside / "inner").mkdir()
        (aside / "inner" / "file.txt").write_text(text)


def test_a_folder_appears_whole_and_replaces_the_one_before(tmp_path):
    for text in ("first", "second"):
        write(tmp_path / "new" / "folder", text)
        assert (tmp_path / "new" / "folder" / "inner" / "file.txt").read_text() == text
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["folder"]


def test_an_error_leaves_what_was_there(tmp_path):
    write(tmp_path / "folder", "first")
    with pytest.raises(TypeError):
        write(tmp_path / "folder", b"no text")
    assert (tmp_path / "folder" / "inner" / "file.txt").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_kill_between_the_renames_loses_nothing(tmp_path):
    write(tmp_path / "folder", "first")
    program = (
        "import os, pathlib, signal, sys\n"
        "from featcache.files import folder_written_whole\n"
        "rename = pathlib.Path.rename\n"
        "def rename_and_die(self, target):\n"
        "    rename(self, target)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "pathlib.Path.rename = rename_and_die\n"
        "with folder_written_whole(pathlib.Path(sys.argv[1])) as aside:\n"
        "    (aside / 'file.txt').write_text('second')\n"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "folder"], check=False)
    assert not (tmp_path / "folder").exists()
    with pytest.raises(TypeError):
        write(tmp_path / "folder", b"no text")
    assert (tmp_path / "folder" / "inner" / "file.txt").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="folder"):
        write(tmp_path / "file" / "folder", "text")


def test_folders_of_dead_processes_are_removed(tmp_path):
    child = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    dead, living = int(child.stdout), os.getpid()
    for number in (dead, living):
        left = tmp_path / f".folder.{socket.gethostname()}.{number}.ab12.aside"
        left.mkdir()
        (left / "half.txt").write_text("half")
    remove_left_behind(tmp_path)
    assert [path.name.split(".")[-3] for path in tmp_path.iterdir()] == [str(living)]
