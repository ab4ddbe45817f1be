"""Photos are placed by their class: nothing is moved, replaced, or written outside of the folder."""

import errno
import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.errors import DataError, StoreError
from featcache.model import Prediction
from featcache.sorting import check_sort_folder, folder_name, sort_photos


@pytest.fixture
def photo(tmp_path):
    """Return a function that writes a photo and returns its prediction."""

    def write(name, label, content="pixels"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return Prediction(str(path), label)

    return write


def found(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_photos_are_linked_into_the_folder_of_their_class_and_stay_where_they_are(photo, tmp_path):
    said = [photo("a.png", "cat", "A"), photo("b.png", "dog", "B"), photo("c.png", None)]
    done = sort_photos(tmp_path / "sorted", said)
    assert found(tmp_path / "sorted") == {"cat/a.png": "A", "dog/b.png": "B"}
    assert (tmp_path / "sorted" / "cat" / "a.png").samefile(said[0].path)
    assert (done.linked, done.copied, done.present, done.unlabelled, done.failed) == (2, 0, 0, 1, [])
    assert "2 linked" in done.sentence
    assert "1 without a class and not placed" in done.sentence
    assert len(found(tmp_path / "photos")) == 3


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.ENOTSUP])
def test_photos_are_copied_where_they_cannot_be_linked(photo, tmp_path, monkeypatch, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    said = [photo("a.png", "cat", "A")]
    assert sort_photos(tmp_path / "sorted", said).copied == 1
    assert sort_photos(tmp_path / "sorted", said).present == 1
    assert found(tmp_path / "sorted") == {"cat/a.png": "A"}
    assert not (tmp_path / "sorted" / "cat" / "a.png").samefile(said[0].path)


def test_a_name_that_exists_is_kept_and_the_new_one_gets_a_number(photo, tmp_path):
    said = [
        photo("one/a.b.png", "cat", "1"),
        photo("two/a.b.png", "cat", "2"),
        photo("3/a.b.png", "cat", "3"),
    ]
    for _ in range(2):  # the second time nothing is added
        done = sort_photos(tmp_path / "sorted", said)
        assert found(tmp_path / "sorted") == {"cat/a.b.png": "1", "cat/a.b-2.png": "2", "cat/a.b-3.png": "3"}
    assert (done.linked, done.present) == (0, 3)


def test_links_and_folders_of_that_name_are_kept(photo, tmp_path):
    target = tmp_path / "sorted" / "cat"
    (target / "b.png").mkdir(parents=True)
    (target / "a.png").symlink_to(tmp_path / "nowhere")
    sort_photos(tmp_path / "sorted", [photo("a.png", "cat", "A"), photo("b.png", "cat", "B")])
    assert found(tmp_path / "sorted") == {"cat/a-2.png": "A", "cat/b-2.png": "B"}
    assert (target / "a.png").is_symlink()
    assert not (tmp_path / "nowhere").exists()


def test_the_photo_behind_a_link_is_placed_under_the_name_of_the_link(photo, tmp_path):
    real = photo("real.png", "cat", "A")
    link = tmp_path / "link.png"
    link.symlink_to(real.path)
    sort_photos(tmp_path / "sorted", [Prediction(str(link), "cat")])
    assert not (tmp_path / "sorted" / "cat" / "link.png").is_symlink()
    assert (tmp_path / "sorted" / "cat" / "link.png").samefile(real.path)


def test_a_photo_that_cannot_be_placed_does_not_stop_the_others(photo, tmp_path):
    (tmp_path / "sorted").mkdir()
    (tmp_path / "sorted" / "cat").write_text("a file")
    said = [
        photo("a.png", "cat", "A"),
        Prediction(str(tmp_path / "gone.png"), "dog"),
        photo("b.png", "dog", "B"),
    ]
    done = sort_photos(tmp_path / "sorted", said)
    assert found(tmp_path / "sorted") == {"cat": "a file", "dog/b.png": "B"}
    assert [path for path, _ in done.failed] == [said[0].path, said[1].path]
    with pytest.raises(StoreError, match=r"2 photos could not be placed; the first is .*a\.png"):
        done.raise_if_any_failed()


@pytest.mark.parametrize("label", ["..", ".", "", "../x", "/etc", "a/b", "a\0b", "\ud800", "x" * 300])
def test_no_class_leads_out_of_the_folder(photo, tmp_path, label):
    sort_photos(tmp_path / "sorted", [photo("a.png", label)])
    outside = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert all(path.is_relative_to(tmp_path / "sorted") for path in outside - {tmp_path / "photos" / "a.png"})
    inside = [path.relative_to(tmp_path / "sorted") for path in outside if "sorted" in path.parts]
    assert all(len(path.parts) == 2 for path in inside), "a folder for each class, and nothing below it"


@given(st.text(), st.text())
def test_different_classes_have_different_folders(one, other):
    assert (folder_name(one) == folder_name(other)) == (one == other)


def test_usual_names_of_classes_are_names_of_folders():
    for label in ("cat", "[bold]red [x]", "קטן 🐈", "a:b?", "100%", ".hidden", "caf\udce9"):
        assert folder_name(label) == label


def test_a_folder_among_the_photos_is_refused(photo, tmp_path):
    photo("a.png", "cat")
    photos = tmp_path / "photos"
    (tmp_path / "link").symlink_to(photos)
    for folder in (photos, photos / "sorted", tmp_path / "link" / "new", photos / ".." / "photos" / "x"):
        with pytest.raises(DataError, match="choose a folder outside"):
            check_sort_folder(folder, [photos])
    check_sort_folder(tmp_path / "photos2", [photos])
    check_sort_folder(photos, [photos / "a.png"])


def test_a_folder_that_cannot_be_written_is_refused(photo, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="is not a folder"):
        check_sort_folder(tmp_path / "file" / "sorted", [])


@pytest.mark.parametrize(
    ("classes", "name"), [(["cat"], "none_of_these"), (["cat", "None_of_these"], "_none_of_these")]
)
def test_rejected_photos_have_a_folder_of_their_own(photo, tmp_path, classes, name):
    said = [photo("a.png", "cat", "A"), replace(photo("b.png", None, "B"), rejected=True)]
    done = sort_photos(tmp_path / "sorted", said, classes)
    assert found(tmp_path / "sorted") == {"cat/a.png": "A", f"{name}/b.png": "B"}
    assert (done.linked, done.rejected, done.unlabelled) == (2, 1, 0)
    assert "1 of these none of the classes" in done.sentence
