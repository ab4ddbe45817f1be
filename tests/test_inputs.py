"""What predict is given becomes photos, in order."""

import io

import numpy as np
import pytest
from conftest import make_photo

from featcache.errors import DataError, ImageError
from featcache.inputs import photos_of


def test_a_mixed_list_keeps_its_order(tmp_path):
    for name in ("b.png", "a.png"):
        make_photo(tmp_path / "folder" / name, 1)
    single = tmp_path / "single.png"
    make_photo(single, 2)
    array = np.zeros((4, 4, 3), np.uint8)
    photos = photos_of([b"bytes", single, tmp_path / "folder", io.BytesIO(b"file"), array, None])
    inside = [str(tmp_path / "folder" / name) for name in ("a.png", "b.png")]
    assert [photo.path for photo in photos] == ["", str(single), *inside, "", "", ""]
    assert [photo.content for photo in photos][:5] == [b"bytes", None, None, None, b"file"]
    assert photos[5].content is array
    assert isinstance(photos[6].content, ImageError)


@pytest.mark.parametrize("one", [b"bytes", io.BytesIO(b"bytes"), memoryview(b"bytes")], ids=type)
def test_one_photo_in_memory_is_not_taken_apart(one):
    (photo,) = photos_of(one)
    assert bytes(photo.content) == b"bytes"


def test_a_generator_is_a_list():
    assert [photo.content for photo in photos_of(data for data in (b"1", b"2"))] == [b"1", b"2"]


def test_paths_that_lead_nowhere_are_refused_before_the_work(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png does not exist"):
        photos_of([b"bytes", tmp_path / "gone.png"])
