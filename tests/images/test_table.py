"""The table: what it says of each photo, in which order, and which data sets are refused in which words."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from small_sets import many, put, refusal, table_of

from featcache.images.index import DigestIndex
from featcache.images.rows import SPLITS
from featcache.images.source import digest_of
from featcache.images.table import read_digests

needs_rights = pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")


def test_rows_carry_path_label_split_and_digest(tmp_path):
    put(tmp_path, "train/cat/a.jpg", "train/dog/b.jpg", "validation/cat/c.jpg", "validation/dog/d.jpg")
    table = table_of(root=tmp_path)
    assert table.classes == ("cat", "dog")
    assert [(row.path, row.label, row.split) for row in table.rows] == [
        (str(tmp_path / "train/cat/a.jpg"), "cat", "train"),
        (str(tmp_path / "train/dog/b.jpg"), "dog", "train"),
        (str(tmp_path / "validation/cat/c.jpg"), "cat", "validation"),
        (str(tmp_path / "validation/dog/d.jpg"), "dog", "validation"),
    ]
    assert (
        table.rows[0].digest == hashlib.sha256(b"train/cat/a.jpg").digest() == digest_of(b"train/cat/a.jpg")
    )
    assert table.unreadable == ()
    assert table.warnings == ()


def test_paths_are_relative_to_the_working_directory(tmp_path, monkeypatch):
    many(tmp_path / "photos", {"cat": 30, "dog": 30})
    monkeypatch.chdir(tmp_path)
    assert all(row.path.startswith(("photos/cat/", "photos/dog/")) for row in table_of(root="photos").rows)


def test_the_order_is_by_split_class_and_path(tmp_path):
    many(tmp_path, {"b": 40, "a": 40, "C": 40})
    rows = table_of(root=tmp_path, split={"train": 0.5, "validation": 0.3, "test": 0.2}).rows
    classes = sorted(["a", "b", "C"])
    assert list(rows) == sorted(rows, key=lambda r: (SPLITS.index(r.split), classes.index(r.label), r.path))
    assert {row.split for row in rows} == set(SPLITS)


def test_progress_counts_every_file_up_to_the_total(tmp_path):
    many(tmp_path, {"a": 50, "b": 50})
    seen = []
    paths = [str(path) for path in tmp_path.rglob("*.jpg")]
    with DigestIndex(None) as index:
        read_digests(paths, index, lambda done, total: seen.append((done, total)))
    assert seen == [(64, 100), (100, 100)]


def test_digests_belong_to_their_files_however_many_threads_read(tmp_path):
    many(tmp_path, {"a": 150, "b": 150})
    for row in table_of(root=tmp_path).rows:
        assert row.digest == digest_of(Path(row.path).read_bytes())


def test_the_digest_is_of_the_whole_file(tmp_path):
    put(tmp_path, "train/a/1", "train/b/2", "val/a/3", "val/b/4")
    content = bytes(range(256)) * 20_000
    (tmp_path / "train/a/1").write_bytes(content)
    assert table_of(root=tmp_path).rows[0].digest == digest_of(content)


# ---- what cannot be read -------------------------------------------------------------------------------


def test_what_cannot_be_read_is_listed_with_its_reason(tmp_path):
    put(tmp_path, "train/a/1", "train/b/2", "val/a/3", "val/b/4")
    (tmp_path / "train/a/dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "train/b/itself").symlink_to(tmp_path / "train/b/itself")
    table = table_of(root=tmp_path)
    assert len(table.rows) == 4
    assert [Path(path).name for path, _ in table.unreadable] == ["dangling", "itself"]
    assert table.unreadable[0][1] == "cannot be read: a link to a file that does not exist"
    assert "symbolic links" in table.unreadable[1][1]


@needs_rights
def test_forbidden_files_and_folders_are_listed(tmp_path):
    put(tmp_path, "train/a/1", "train/b/2", "train/b/shut", "train/a/closed/5", "val/a/3", "val/b/4")
    (tmp_path / "train/b/shut").chmod(0)
    (tmp_path / "train/a/closed").chmod(0)
    table = table_of(root=tmp_path)
    (tmp_path / "train/a/closed").chmod(0o700)
    assert [(Path(path).name, reason) for path, reason in table.unreadable] == [
        ("closed", "permission denied"),
        ("shut", "cannot be read: permission denied"),
    ]


def test_names_that_are_no_text_are_listed_and_can_be_printed(tmp_path):
    put(tmp_path, "train/a/1", "train/b/2", "val/a/3", "val/b/4")
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/train/a/\xff.jpg")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    ((path, reason),) = table_of(root=tmp_path).unreadable
    path.encode("utf-8")
    assert "UTF-8" in reason


# ---- what is refused -----------------------------------------------------------------------------------


def test_one_class_only(tmp_path):
    message = refusal(root=put(tmp_path, "cat/1.jpg", "cat/2.jpg"))
    assert "one class only, 'cat'" in message


def test_a_label_that_train_lacks(tmp_path):
    put(tmp_path, "train/cats/1", "train/dogs/2", "val/cats/3", "val/dog/4")
    message = refusal(root=tmp_path)
    assert "'dog'" in message
    assert "Did you mean 'dogs'?" in message


def test_a_class_of_which_nothing_can_be_read(tmp_path):
    put(tmp_path, "train/a/1", "val/a/3", "val/b/4")
    (tmp_path / "train/b").mkdir()
    (tmp_path / "train/b/gone").symlink_to(tmp_path / "nowhere")
    message = refusal(root=tmp_path)
    assert "train has no photo of 'b'" in message
    assert "gone" in message


def test_an_unreadable_validation_is_not_replaced_by_a_draw(tmp_path):
    many(tmp_path / "train", {"a": 50, "b": 50})
    for label in "ab":
        (tmp_path / "val" / label).mkdir(parents=True)
        (tmp_path / "val" / label / "gone").symlink_to(tmp_path / "nowhere")
    assert "validation would be empty" in refusal(root=tmp_path)


# ---- copies --------------------------------------------------------------------------------------------


def test_equal_photos_under_two_labels_are_pointed_out(tmp_path):
    many(tmp_path, {"a": 40, "b": 40})
    (tmp_path / "b/0007.jpg").write_bytes((tmp_path / "a/0003.jpg").read_bytes())
    (warning,) = table_of(root=tmp_path).warnings
    assert "identical photos have two labels (1 in all" in warning
    assert "0003.jpg (a)" in warning
    assert "0007.jpg (b)" in warning


def test_equal_photos_in_two_given_splits_are_pointed_out(tmp_path):
    put(tmp_path, "train/a/1", "train/b/2", "val/a/3", "val/b/4", "test/a/5", "test/b/6")
    for copy, original in (("val/a/3", "train/a/1"), ("test/b/6", "train/b/2")):
        (tmp_path / copy).write_bytes((tmp_path / original).read_bytes())
    (warning,) = table_of(root=tmp_path).warnings
    assert "identical photos have two splits (2 in all" in warning


def test_copies_of_one_class_in_one_split_are_nobodys_business(tmp_path):
    many(tmp_path, {"a": 40, "b": 40})
    (tmp_path / "a/0007.jpg").write_bytes((tmp_path / "a/0003.jpg").read_bytes())
    table = table_of(root=tmp_path)
    assert table.warnings == ()
    assert len(table.rows) == 80


def test_empty_files_are_no_copies_of_each_other(tmp_path):
    put(tmp_path, "train/a/1", "train/b/2", "val/a/3", "val/b/4")
    for name in ("train/a/0", "train/b/0", "val/a/0"):
        (tmp_path / name).touch()
    table = table_of(root=tmp_path)
    assert table.warnings == ()
    assert len(table.rows) == 7
