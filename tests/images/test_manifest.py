"""The manifest: how its lines are read, and which faults are named with their line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from small_sets import manifest, many, put, refusal, splits_of, table_of

from featcache.images import manifest as module


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_a_manifest_with_splits(tmp_path, mark, ends):
    put(tmp_path, "p/1", "p/2, really", "p/ä", "p/4", "p/5")
    lines = [
        "path,label,split",
        "p/1,cat,train",
        '"p/2, really",dog,training',
        "p/ä,cat,val",
        "p/4,dog,Valid",
        "p/5, dog ,test",
    ]
    table = table_of(manifest=manifest(tmp_path, mark + ends.join(lines) + ends))
    assert [(Path(row.path).name, row.label, row.split) for row in table.rows] == [
        ("1", "cat", "train"),
        ("2, really", "dog", "train"),
        ("ä", "cat", "validation"),
        ("4", "dog", "validation"),
        ("5", "dog", "test"),
    ]


def test_manifest_paths_are_relative_to_its_folder_or_absolute(tmp_path, monkeypatch):
    put(tmp_path / "lists", "1", "2")
    put(tmp_path / "far", "3", "4")
    text = f"label,path,split\na,1,train\nb,2,train\na,{tmp_path}/far/3,val\nb,../far/4,val\n"
    manifest(tmp_path / "lists", text)
    monkeypatch.chdir(tmp_path)
    table = table_of(manifest="lists/photos.csv")
    assert {row.path for row in table.rows} == {"lists/1", "lists/2", f"{tmp_path}/far/3", "lists/../far/4"}


def test_a_manifest_without_splits_is_drawn_by_shares(tmp_path):
    many(tmp_path, {"a": 100, "b": 100})
    lines = [f"{label}/{n:04d}.jpg,{label}" for label in "ab" for n in range(100)]
    by_manifest = table_of(manifest=manifest(tmp_path, "path,label\n" + "\n".join(lines)))
    (tmp_path / "photos.csv").unlink()
    assert splits_of(by_manifest) == splits_of(table_of(root=tmp_path))


@pytest.mark.parametrize(
    ("text", "complaints"),
    [
        ("file,label\n1,a\n", ["line 1", "no column 'path'", "'file'"]),
        ("path,lable\n1,a\n", ["line 1", "no column 'label'", "found 'path', 'lable'"]),
        ("path;label\n1;a\n", ["line 1", "no column 'path'", "with commas"]),
        ("", ["line 1", "no column 'path'"]),
        ("path,label\n", ["lists no photo"]),
        ("path,label\n1,a\n2,\n", ["line 3", "label is empty"]),
        ("path,label\n1,a\n2\n", ["line 3", "label is empty"]),
        ("path,label\n1,a\n,b\n", ["line 3", "path is empty"]),
        ("path,label\n1,a\nnowhere,b\n", ["line 3", "nowhere does not exist", "relative to the manifest"]),
        ("path,label\n1,a\n.,b\n", ["line 3", "is a folder"]),
        ("path,label\n1,a\n1,2,b\n", ["line 3", "more values than columns", "quotes"]),
        ("path,label,split\n1,a,train\n2,b,tran\n", ["line 3", "'tran'", "Did you mean 'train'"]),
        ("path,label,split\n1,a,train\n\n2,b,\n", ["line 4", "split ''", "validation"]),
        ("path,label\n1,a\n2,a\n", ["one class only"]),
        ("path,label,split\n1,a,train\n2,b,train\n1,c,test\n", ["'c'", "train lacks"]),
        ("path,label,split\n1,a,test\n2,b,test\n", ["train lacks"]),
    ],
)
def test_manifest_faults_are_named_with_their_line(tmp_path, text, complaints):
    put(tmp_path, "1", "2")
    message = refusal(manifest=manifest(tmp_path, text))
    for complaint in complaints:
        assert complaint in message
    assert "photos.csv" in message or "lacks" in message


def test_manifests_that_are_none(tmp_path):
    assert "does not exist" in refusal(manifest=tmp_path / "nowhere.csv")
    assert "is a folder" in refusal(manifest=tmp_path)
    (tmp_path / "latin.csv").write_bytes("path,label\nä,b\n".encode("latin-1"))
    assert "not UTF-8" in refusal(manifest=tmp_path / "latin.csv")


def test_a_dangling_link_in_a_manifest_is_unreadable(tmp_path):
    put(tmp_path, "1", "2", "3", "4")
    (tmp_path / "5").symlink_to("nowhere")
    lines = "1,a,train\n2,b,train\n3,a,val\n4,b,val\n5,a,train\n"
    table = table_of(manifest=manifest(tmp_path, "path,label,split\n" + lines))
    assert [Path(path).name for path, _ in table.unreadable] == ["5"]


@pytest.mark.parametrize("name", ["pipe.csv", "/dev/zero"])
def test_a_manifest_that_is_a_pipe_or_has_no_end_is_refused_at_once(tmp_path, name):
    os.mkfifo(tmp_path / "pipe.csv")
    assert "cannot be read: it is not a regular file" in refusal(manifest=tmp_path / name)


def test_a_manifest_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MOST_BYTES", 10)
    assert "at most 10 are read" in refusal(manifest=manifest(tmp_path, "path,label\n1,a\n"))


@pytest.mark.parametrize(("name", "fault"), [("pipe", "is not a regular file"), ("a\0b", "NUL")])
def test_lines_that_name_no_regular_file(tmp_path, name, fault):
    put(tmp_path, "1")
    os.mkfifo(tmp_path / "pipe")
    message = refusal(manifest=manifest(tmp_path, f"path,label\n1,a\n{name},b\n"))
    assert "line 3" in message
    assert fault in message


def test_a_name_that_is_too_long_is_an_unreadable_photo_and_the_others_stay(tmp_path):
    put(tmp_path, "1", "2", "3", "4")
    lines = f"1,a,train\n2,b,train\n3,a,val\n4,b,val\n{'x' * 5000},a,train\n"
    table = table_of(manifest=manifest(tmp_path, "path,label,split\n" + lines))
    assert len(table.rows) == 4
    ((path, reason),) = table.unreadable
    assert len(Path(path).name) == 5000
    assert "too long" in reason
