"""A folder is written whole or not at all, like a file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from featcache.errors import StoreError
from featcache.files import folder_written_whole, remove_left_behind, write_bytes_whole


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


WRITE_AND_WAIT = (
    "import pathlib, sys\n"
    "from featcache.files import folder_written_whole, written_whole\n"
    "folder = pathlib.Path(sys.argv[1])\n"
    "with written_whole(folder / 'file') as one, folder_written_whole(folder / 'sub') as other:\n"
    "    one.write_text('half')\n"
    "    print('ready', flush=True)\n"
    "    sys.stdin.read()\n"
)


@pytest.fixture
def writer(tmp_path):
    """A process that is in the middle of writing a file and a folder."""
    command = [sys.executable, "-c", WRITE_AND_WAIT, tmp_path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"ready\n"
        yield child
        child.kill()


def unfinished(folder):
    return sorted(path.name for path in folder.glob(".*.aside"))


def test_what_a_living_process_writes_stays_and_what_a_killed_one_left_is_removed(tmp_path, writer):
    remove_left_behind(tmp_path)
    assert len(unfinished(tmp_path)) == 2
    writer.kill()
    writer.wait()
    remove_left_behind(tmp_path)
    assert unfinished(tmp_path) == []


def test_a_process_number_that_was_given_again_is_not_the_owner(tmp_path, writer):
    for path in tmp_path.glob(".*.aside"):
        space, pid, started, rest = path.name.rsplit("-", 3)
        path.rename(path.with_name(f"{space}-{pid}-{int(started) - 1}-{rest}"))
    remove_left_behind(tmp_path)
    assert unfinished(tmp_path) == []


def test_the_number_of_a_process_in_another_container_says_nothing(tmp_path, writer):
    """There the process may live although there is none of its number here: only old files are removed."""
    writer.kill()
    writer.wait()
    for path in tmp_path.glob(".*.aside"):
        space, pid, started, rest = path.name.rsplit("-", 3)
        path.rename(path.with_name(f"{space[:-8]}0123abcd-{pid}-{started}-{rest}"))
    remove_left_behind(tmp_path)
    assert len(unfinished(tmp_path)) == 2
    for path in tmp_path.glob(".*.aside"):
        os.utime(path, (0, 0))
    remove_left_behind(tmp_path)
    assert unfinished(tmp_path) == []


def test_only_regular_files_are_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("/dev/null")
    for name in ("pipe", "folder", "link"):
        with pytest.raises(StoreError, match="not a regular file"):
            write_bytes_whole(tmp_path / name, b"data")
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "link").readlink() == Path("/dev/null")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "link", "pipe"]


def test_a_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    for name in ("there", "dangling"):
        (tmp_path / name).symlink_to(tmp_path / "real" / name)
    (tmp_path / "real" / "there").write_bytes(b"before")
    for name in ("there", "dangling"):
        write_bytes_whole(tmp_path / name, b"data")
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / "real" / name).read_bytes() == b"data"


def test_a_link_to_itself_is_an_error_of_one_line(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(StoreError, match="loop"):
        write_bytes_whole(tmp_path / "loop", b"data")


def test_a_file_is_not_replaced_by_a_folder(tmp_path):
    (tmp_path / "folder").write_text("mine")
    with pytest.raises(StoreError, match="not a folder"):
        write(tmp_path / "folder", "text")
    assert (tmp_path / "folder").read_text() == "mine"


def test_a_link_to_a_folder_stays(tmp_path):
    write(tmp_path / "real", "first")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write(tmp_path / "link", "second")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "inner" / "file.txt").read_text() == "second"
