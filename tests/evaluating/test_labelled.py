"""Labelled photos are found in folders and manifests, and their labels are read as classes of the model."""

import pytest
from conftest import make_photo

from featcache.errors import DataError
from featcache.evaluating.labelled import find_labelled

CLASSES = ("cat", "dog", "owl")


def photos(folder, *names):
    for number, name in enumerate(names):
        make_photo(folder / name, number)
    return folder


def labels(found):
    return sorted(photo.label for photo in found.photos.values())


def test_not_every_class_needs_photos_and_one_is_enough(tmp_path):
    folder = photos(tmp_path / "new", "dog/1.png", "dog/2.png")
    (folder / "owl").mkdir()
    assert labels(find_labelled(folder, CLASSES)) == ["dog", "dog"]


def test_a_single_class_whose_photos_lie_in_folders(tmp_path):
    folder = photos(tmp_path / "new", "dog/monday/1.png", "dog/tuesday/2.png")
    assert labels(find_labelled(folder, CLASSES)) == ["dog", "dog"]


def test_of_a_folder_of_splits_all_photos_are_taken(tmp_path):
    folder = photos(tmp_path / "all", "train/cat/1.png", "val/dog/2.png", "test/owl/3.png")
    assert labels(find_labelled(folder, CLASSES)) == ["cat", "dog", "owl"]
    only = photos(tmp_path / "only", "test/owl/3.png")
    assert labels(find_labelled(only, CLASSES)) == ["owl"]


def test_a_class_named_like_a_split_is_a_class(tmp_path):
    folder = photos(tmp_path / "new", "train/1.png", "ship/2.png")
    assert labels(find_labelled(folder, ("ship", "train"))) == ["ship", "train"]


def test_other_spellings_of_a_class_are_that_class_and_this_is_said(tmp_path):
    folder = photos(tmp_path / "new", "Cat/1.png", "dog/2.png")
    found = find_labelled(folder, CLASSES)
    assert labels(found) == ["cat", "dog"]
    assert any("'Cat' as 'cat'" in note for note in found.notes)


def test_letters_that_differ_in_case_stay_apart(tmp_path):
    folder = photos(tmp_path / "new", "a/1.png", "A/2.png")
    assert labels(find_labelled(folder, ("A", "a"))) == ["A", "a"]


def test_labels_that_the_model_does_not_know_are_named(tmp_path):
    folder = photos(tmp_path / "new", "cat/1.png", "dgo/2.png", "dgo/3.png")
    with pytest.raises(DataError, match=r"\(2 in all\) have labels that are no classes .*: 'dgo'") as it:
        find_labelled(folder, CLASSES)
    assert "Did you mean 'dog'?" in str(it.value)
    assert "--skip-unknown" in str(it.value)
    found = find_labelled(folder, CLASSES, skip_unknown=True)
    assert (labels(found), dict(found.unknown)) == (["cat"], {"dgo": 2})


def test_with_unknown_labels_only_there_is_nothing_to_skip(tmp_path):
    folder = photos(tmp_path / "new", "lynx/1.png")
    with pytest.raises(DataError, match="'lynx'"):
        find_labelled(folder, CLASSES, skip_unknown=True)


def test_a_manifest_with_a_missing_photo_and_one_with_two_labels(tmp_path):
    photos(tmp_path, "1.png", "2.png")
    manifest = tmp_path / "list.csv"
    manifest.write_text("path,label\n1.png,cat\n2.png,dog\n2.png,owl\ngone.png,cat\n1.png,cat\n")
    found = find_labelled(manifest, CLASSES)
    assert [path.rpartition("/")[2] for path in found.photos] == ["1.png", "gone.png"]
    assert [path.rpartition("/")[2] for path in found.two_labels] == ["2.png"]


def test_a_source_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"gone does not exist .* a folder of class folders, or a CSV"):
        find_labelled(tmp_path / "gone", CLASSES)
