"""The samples: whole or not at all, and good enough to be read back as photos."""

from __future__ import annotations

from collections import Counter
from unittest import mock

import numpy as np
import pytest
from PIL import Image
from small_sets import table_of

from featcache.errors import DataError
from featcache.images.decode import decode
from featcache.images.samples import write_sample


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples") / "new" / "digits"
    assert write_sample("digits", folder) == 1797
    return folder


def test_digits_are_a_data_set_that_can_be_loaded(digits):
    table = table_of(root=digits)
    assert table.classes == tuple("0123456789")
    assert len(table.rows) == 1797
    assert table.warnings == ()
    assert table.unreadable == ()
    assert min(Counter(row.label for row in table.rows).values()) > 170


def test_digits_are_the_right_ones_in_the_full_range_of_grey(digits):
    from sklearn.datasets import load_digits

    originals = load_digits()
    assert originals.target[0] == 0
    pixels = decode((digits / "0/digit-0001.png").read_bytes(), (32, 32))
    np.testing.assert_allclose(pixels[::4, ::4, 1], originals.images[0] * 255 / 16, atol=0.51)
    np.testing.assert_array_equal(pixels[::4, ::4], pixels[3::4, 3::4])
    assert pixels.max() > 200


def test_nothing_is_left_beside_it(digits):
    assert [entry.name for entry in digits.parent.iterdir()] == ["digits"]


def test_an_empty_folder_is_filled(tmp_path):
    assert write_sample("digits", tmp_path) == 1797
    assert len(list(tmp_path.glob("*/*.png"))) == 1797


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="choose another"):
        write_sample("digits", tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.txt"]


def test_a_file_is_left_alone(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="choose another"):
        write_sample("digits", tmp_path / "file")
    with pytest.raises(DataError, match="cannot be written"):
        write_sample("digits", tmp_path / "file" / "below")
    assert (tmp_path / "file").read_text() == "mine"


def test_an_unknown_name(tmp_path):
    with pytest.raises(DataError, match="Did you mean 'digits'"):
        write_sample("digit", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_half_way_leaves_nothing(tmp_path, failure):
    save, saved = Image.Image.save, []

    def fail_at_the_tenth(image, *args):
        saved.append(1)
        if len(saved) == 10:
            raise failure
        save(image, *args)

    expected = KeyboardInterrupt if isinstance(failure, KeyboardInterrupt) else DataError
    with mock.patch.object(Image.Image, "save", fail_at_the_tenth), pytest.raises(expected):
        write_sample("digits", tmp_path / "digits")
    assert list(tmp_path.iterdir()) == []
