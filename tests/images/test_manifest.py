"""The manifest: how its lines are read, and which faults are named with their line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from conftest import run_cli
from small_sets import kinds, manifest, many, put, refusal, splits_of, table_of

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
        ("path;lable\n1;a\n", ["line 1", "no column 'label'", "'lable'", "with commas"]),
        ("filename,class\n1,a\n", ["'filename' to 'path'", "'class' to 'label'"]),
        ("Image_Path;Category\n1;a\n", ["'Image_Path' to 'path'", "'Category' to 'label'"]),
        ("path,label,Label\n1,a,b\n", ["2 columns are named 'label'"]),
        ("path,red,blue\n1,1,0\n", ["no column 'label'", "columns of 0 and 1: 'red', 'blue'", "one label"]),
        ('path,label\n"1,a\n2,b\n', ["line 2", "close the double quote"]),
        ("path,label,note\n1,a,x\n2,b\n", ["line 3", "2 values for 3 columns"]),
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
        ("path,label,weight\n1,a,1\n2,b,\n", ["line 3", "weight is empty", "from 0 to 1,000,000"]),
        ("path,label,weight\n1,a,1\n2,b,-0.5\n", ["line 3", "weight -0.5 is not allowed"]),
        ("path,label,weight\n1,a,nan\n2,b,inf\n", ["2 lines", "line 2: weight nan", "line 3: weight inf"]),
        ('path,label,weight\n1,a,many\n2,b,"0,5"\n', ["line 2: weight 'many'", "with a decimal point"]),
        ("path,label,weight\n1,a,0\n2,b,0.0\n", ["all weights are 0"]),
        ("path,label,weight\n1,a,1\n2,b,0\n", ["all photos of 'b'", "weight 0"]),
        ("path,label,weight,split\n1,a,1,train\n2,b,1,train\n2,b,0,test\n", ["all photos of 'test'"]),
        ("path,label,weight\n1,a,1\n2,b,1\n1,a,2\n", ["1 photos", "another group or weight"]),
        ("path,label,group\n1,a,x\n2,b,x\n", ["all photos are in one group, 'x'"]),
        ("path,label,group\n1,a,x\n2,b,y\n", ["all photos of each class are in one group"]),
        ("path,label,group,Group\n1,a,x,x\n2,b,y,y\n", ["2 columns are named 'group'"]),
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
    (tmp_path / "noise.csv").write_bytes(b"path,label\n\x81\x8d,b\n")
    assert "is not text" in refusal(manifest=tmp_path / "noise.csv")
    (tmp_path / "book.csv").write_bytes(b"PK\x03\x04 and so on")
    assert "save it as CSV" in refusal(manifest=tmp_path / "book.csv")


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


# ---- all bad lines at once -----------------------------------------------------------------------------

ALL_TRAIN = {"train": 1.0, "validation": 0.0, "test": 0.0}


def with_lines(folder: Path, *lines: str, columns: str = "path,label") -> Path:
    """Write four photos, and a manifest of them and of further lines."""
    put(folder, "d/1", "d/2", "d/3", "d/4")
    return manifest(folder, "\n".join([columns, "d/1,a", "d/2,b", "d/3,a", "d/4,b", *lines]) + "\n")


def test_all_bad_lines_are_counted_and_the_first_are_shown(tmp_path):
    bad = ["lost,a", ",b", "d/1", *(f"lost{n},a" for n in range(7))]
    message = refusal(manifest=with_lines(tmp_path, *bad))
    assert "10 lines cannot be used" in message
    assert all(f"line {number}: " in message for number in range(6, 11))
    assert "line 11" not in message
    assert "and 5 more" in message
    assert "Files that do not exist: 8." in message
    assert "--skip-missing" in message


def test_missing_files_can_be_skipped_and_are_listed(tmp_path):
    lines = [f"lost{n},a" for n in range(7)]
    table = table_of(manifest=with_lines(tmp_path, *lines), skip_missing=True, split=ALL_TRAIN)
    assert len(table.rows) == 4
    assert [Path(path).name for path, _ in table.unreadable] == [f"lost{n}" for n in range(7)]
    assert {reason for _, reason in table.unreadable} == {"cannot be read: no such file or directory"}


def test_a_class_of_missing_files_only_is_refused(tmp_path):
    message = refusal(manifest=with_lines(tmp_path, "lost,c"), skip_missing=True)
    assert "'c'" in message
    assert "lost" in message


def test_empty_rows_are_left_out_and_counted(tmp_path):
    table = table_of(manifest=with_lines(tmp_path, ",", "", " , ", ",,"), split=ALL_TRAIN)
    assert len(table.rows) == 4
    assert kinds(table) == ["empty_lines"]
    assert table.warnings[0].startswith("3 empty rows")


def test_repeated_lines_are_one_row(tmp_path):
    table = table_of(manifest=with_lines(tmp_path, "d/1,a", "./d/1, a", "d/2,b"), split=ALL_TRAIN)
    assert len(table.rows) == 4
    assert kinds(table) == ["repeated_lines"]
    assert table.warnings[0].startswith("3 rows")


def test_one_photo_under_two_labels_is_pointed_out(tmp_path):
    table = table_of(manifest=with_lines(tmp_path, "d/1,b"), split=ALL_TRAIN)
    assert kinds(table) == ["copies_across_labels"]
    assert "two labels" in table.warnings[0]


# ---- as spreadsheets and other systems write them ------------------------------------------------------


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("encoding", "separator", "first", "said"),
    [
        ("cp1252", ",", "", ["as cp1252"]),
        ("utf-8", ";", "", ["semicolons"]),
        ("utf-8", "\t", "", ["tabs"]),
        ("cp1252", ";", "", ["as cp1252", "semicolons"]),
        ("utf-16", "\t", "", ["as utf-16", "tabs"]),
        ("utf-16-be", ";", "", ["as utf-16-be"]),
        ("utf-8-sig", ";", "sep=;", ["semicolons"]),
        ("utf-8-sig", ",", "", []),
    ],
)
def test_what_excel_writes_is_read_and_said(tmp_path, encoding, separator, first, said, ends):
    put(tmp_path, "1", "2", "é")
    lines = [first] if first else []
    lines += [separator.join(row) for row in (("Path", "LABEL"), ("1", "Käfer"), ("2", "b"), ("é", "b"))]
    (tmp_path / "list.csv").write_bytes(ends.join([*lines, ""]).encode(encoding))
    table = table_of(manifest=tmp_path / "list.csv", split=ALL_TRAIN)
    assert {row.label for row in table.rows} == {"Käfer", "b"}
    assert len(table.rows) == 3
    assert kinds(table) == (["manifest_guess"] if said else [])
    for guess in said:
        assert guess in table.warnings[0]


def test_numbers_of_lines_count_the_line_of_the_separator(tmp_path):
    put(tmp_path, "1")
    assert "line 4: " in refusal(manifest=manifest(tmp_path, "sep=;\npath;label\n1;a\nlost;b\n"))


def test_backslashes_are_understood_where_the_file_exists(tmp_path):
    table = table_of(manifest=with_lines(tmp_path, "d\\1,a", ".\\d\\2,b"), split=ALL_TRAIN)
    assert len(table.rows) == 4
    assert "2 paths" in table.warnings[0]
    assert "backslashes" in table.warnings[0]


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("d\\lost", "separators of Windows"),
        ("C:\\photos\\1.jpg", "drive of Windows"),
        ("https://example.org/a.jpg", "photos are not fetched; download"),
        ("s3://bucket/a.jpg", "photos are not fetched; download"),
    ],
)
def test_paths_of_elsewhere_are_named(tmp_path, path, hint):
    message = refusal(manifest=with_lines(tmp_path, f"{path},a"))
    assert "line 6" in message
    assert hint in message


def test_paths_in_another_form_of_unicode_are_found(tmp_path):
    put(tmp_path, "e\u0301")
    if (tmp_path / "\u00e9").exists():
        pytest.skip("this file system knows both forms")
    table = table_of(manifest=with_lines(tmp_path, "\u00e9,a"), split=ALL_TRAIN)
    assert len(table.rows) == 5
    assert "form of Unicode" in table.warnings[0]


def test_other_columns_are_named(tmp_path):
    put(tmp_path, "1", "2")
    text = "path,label,Subset,\n1,a,train,\n2,b,val,\n"
    table = table_of(manifest=manifest(tmp_path, text), split=ALL_TRAIN)
    assert kinds(table) == ["unused_columns"]
    assert "'Subset' says the split, rename it" in table.warnings[0]


def test_groups_and_weights_of_a_manifest(tmp_path):
    put(tmp_path, *"1234")
    text = "path,label,Weight,GROUP\n1,a,0.5,Zo\u00eb\n2,b,1e3,Zoe\u0308\n3,b,2, \n4,b,0,z\n"
    table = table_of(manifest=manifest(tmp_path, text), split=ALL_TRAIN)
    # two forms of Unicode are one group
    assert [(row.group, row.weight) for row in table.rows] == [("Zo\u00eb", 0.5), ("Zo\u00eb", 1e3), ("", 2)]
    assert kinds(table) == ["weight_zero", "not_grouped"]
    assert "1 photos of weight 0 are left out, for example " in table.warnings[0]
    assert "1 of 3 photos have no group" in table.warnings[1]


def test_columns_that_may_be_groups_and_weights_are_named(tmp_path):
    put(tmp_path, "1", "2")
    text = "path,label,patient_id,sample_weight\n1,a,x,1\n2,b,y,1\n"
    (warning,) = table_of(manifest=manifest(tmp_path, text), split=ALL_TRAIN).warnings
    assert "If 'patient_id' says which photos must not be divided, rename it to 'group'." in warning
    assert "If 'sample_weight' says how much a photo counts, rename it to 'weight'." in warning


def test_the_command_line_skips_missing_files(tmp_path):
    file = with_lines(tmp_path, "lost,a")
    refused = run_cli("info", file)
    assert refused.returncode == 1
    assert "--skip-missing" in refused.stderr
    told = run_cli(
        "info",
        file,
        "--skip-missing",
        "--json",
        "--set",
        "data.split.train=1.0",
        "--set",
        "data.split.validation=0.0",
    )
    assert json.loads(told.stdout)["photos"] == {"train": 4}
