"""Folders: what is listed, which links are followed, and that no photo is listed twice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from small_sets import put, table_of

from featcache.errors import DataError
from featcache.images.folders import photo_files


def test_leftovers_of_systems_are_ignored(tmp_path):
    put(tmp_path, "train/a/1", "train/b/2", "val/a/3", "val/b/4")
    put(tmp_path, "train/a/.DS_Store", "train/a/Thumbs.db", "train/a/desktop.ini", "train/a/.hidden/5")
    put(
        tmp_path,
        "train/__MACOSX/a/6",
        "train/.ipynb_checkpoints/7",
        "train/a/__MACOSX/8",
        "__MACOSX/9",
        ".x/1",
    )
    table = table_of(root=tmp_path)
    assert len(table.rows) == 4
    assert table.classes == ("a", "b")
    assert table.warnings == ()


def test_links_are_followed_and_loops_end(tmp_path):
    put(tmp_path / "elsewhere", "1", "2")
    put(tmp_path, "train/a/0", "train/b/3", "val/a/4", "val/b/5")
    (tmp_path / "train/a/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "train/a/file").symlink_to(tmp_path / "elsewhere/1")
    (tmp_path / "train/a/loop").symlink_to(tmp_path / "train/a")
    (tmp_path / "elsewhere/up").symlink_to(tmp_path / "elsewhere")
    names = [Path(row.path).name for row in table_of(root=tmp_path).rows if row.label == "a"]
    assert sorted(names) == ["0", "1", "2", "4"]  # "file" and "1" are one file


def test_a_class_folder_may_be_a_link(tmp_path):
    put(tmp_path / "elsewhere", "1", "2")
    put(tmp_path, "train/b/3", "val/a/4", "val/b/5")
    (tmp_path / "train/a").symlink_to(tmp_path / "elsewhere")
    assert table_of(root=tmp_path).classes == ("a", "b")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_and_devices_are_reported_and_not_waited_for(tmp_path):
    put(tmp_path, "train/a/1", "train/b/2", "val/a/3", "val/b/4")
    os.mkfifo(tmp_path / "train/a/pipe")
    (tmp_path / "train/a/link").symlink_to("pipe")
    (tmp_path / "train/b/zero.png").symlink_to("/dev/zero")
    table = table_of(root=tmp_path)
    assert len(table.rows) == 4
    assert [(Path(path).name, reason) for path, reason in table.unreadable] == [
        ("link", "cannot be read: it is not a regular file"),
        ("pipe", "cannot be read: it is not a regular file"),
        ("zero.png", "cannot be read: it is not a regular file"),
    ]


def test_photo_files_are_all_candidates_below_a_folder(tmp_path):
    put(tmp_path, "b.jpg", "a/2.png", "a/deep/3", ".hidden", "Thumbs.db", "__MACOSX/a/4")
    assert photo_files(tmp_path) == [str(tmp_path / name) for name in ("a/2.png", "a/deep/3", "b.jpg")]
    with pytest.raises(DataError, match="cannot be read"):
        photo_files(tmp_path / "nowhere")


def test_photo_files_lists_links_to_photos_too_and_folders_once(tmp_path):
    put(tmp_path, "in/a/1.jpg", "out.jpg")
    (tmp_path / "in/link.jpg").symlink_to(tmp_path / "in/a/1.jpg")
    (tmp_path / "in/again").symlink_to("a")
    (tmp_path / "in/up").symlink_to("..")
    assert photo_files(tmp_path / "in") == [str(tmp_path / name) for name in ("in/a/1.jpg", "in/link.jpg")]


@pytest.mark.parametrize("target", ["..", "../..", "../blue", "../blue/deep", "../../red"])
def test_links_to_folders_above_or_of_other_classes_count_no_photo_twice(tmp_path, target):
    photos = put(tmp_path / "photos", "red/1", "red/2", "blue/3", "blue/deep/4")
    (photos / "red/link").symlink_to(target)
    (tmp_path / "red").symlink_to(photos)
    table = table_of(root=photos, split={"train": 1.0, "validation": 0.0, "test": 0.0})
    assert [(row.label, Path(row.path).name) for row in table.rows] == [
        ("blue", "3"),
        ("blue", "4"),
        ("red", "1"),
        ("red", "2"),
    ]
    (finding,) = table.findings
    assert finding.kind == "repeated_links"
    assert finding.photos == (str(photos / "red/link"),)
    assert "1 in all" in finding.text


def test_a_class_folder_elsewhere_does_not_lead_back(tmp_path):
    put(tmp_path / "elsewhere", "1")
    put(tmp_path / "photos", "b/2")
    (tmp_path / "photos/a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "photos")
    table = table_of(root=tmp_path / "photos", split={"train": 1.0, "validation": 0.0, "test": 0.0})
    assert [(row.label, Path(row.path).name) for row in table.rows] == [("a", "1"), ("b", "2")]


def test_two_links_to_one_photo_are_one_photo(tmp_path):
    put(tmp_path, "store/1", "store/2", "photos/b/3")
    (tmp_path / "photos/a").mkdir()
    for name, target in (("x", "1"), ("y", "1"), ("z", "2")):
        (tmp_path / "photos/a" / name).symlink_to(tmp_path / "store" / target)
    table = table_of(root=tmp_path / "photos", split={"train": 1.0, "validation": 0.0, "test": 0.0})
    assert [Path(row.path).name for row in table.rows] == ["x", "z", "3"]
    assert [Path(path).name for path in table.findings[0].photos] == ["y"]


@pytest.mark.parametrize("name", ["@eaDir", "$RECYCLE.BIN", "lost+found", "__pycache__"])
def test_leftovers_are_no_class(tmp_path, name):
    photos = put(tmp_path, "a/1", "b/2", f"{name}/3", f"a/{name}/4")
    table = table_of(root=photos, split={"train": 1.0, "validation": 0.0, "test": 0.0})
    assert [Path(row.path).name for row in table.rows] == ["1", "2"]
