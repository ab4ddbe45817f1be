"""Files that version 0.1 wrote still open."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from featcache.store.base_store import BaseStore
from featcache.store.feature_file import Features
from featcache.store.packing import pack
from featcache.store.plan import Key

OLD = Path(__file__).resolve().parents[1] / "data" / "v0.1"
BASE = {"feature_shape": [2, 3], "dtype": "float32", "name": "tiny"}


@pytest.fixture
def old(tmp_path):
    """A copy of the files, whose feature file names the copy of the store."""
    folder = tmp_path / "old"
    shutil.copytree(OLD, folder)
    with h5py.File(folder / "features.h5", "r+") as file:
        file.attrs["store"] = str(folder / "cache" / "tiny-1" / "shards")
    return folder


def rows(*numbers):
    return np.array([np.full((2, 3), number) for number in numbers], np.float32)


def test_shards(old):
    store = BaseStore(old / "cache" / "tiny-1", BASE)
    wanted = [Key(bytes([n]) * 32, view) for n in range(1, 7) for view in (0, 77)]
    notes = []
    found = store.find(wanted, notes.append)
    assert notes == []
    read = store.read([found[key] for key in wanted], (2, 3), np.float32)
    assert np.array_equal(read, rows(*[sign * n for n in range(1, 7) for sign in (1, -1)]))


@pytest.mark.parametrize("name", ["features.h5", "packed.h5", "packed again.h5"])
def test_feature_files(old, name):
    if name == "packed again.h5":
        with Features(old / "packed.h5") as features:
            pack(features, old / name)
    with Features(old / name) as features:
        assert features.classes == ("even", "odd")
        assert (features.base, features.recipe) == (BASE, {"seed": 0})
        assert features.skipped == [("p/bad.jpg", "empty file")]
        assert features.packed == (name != "features.h5")
        train, validation = features["train"], features["validation"]
        assert np.array_equal(train.load()[0], rows(1, 2, 3, 4))
        assert np.array_equal(train.load_views()[0], rows(1, -1, 2, -2, 3, -3, 4, -4))
        assert (train.view_numbers, train.augment) == ((0, 77), {"flip": True, "views": 2})
        assert np.array_equal(validation.load()[0], rows(5, 6))
        assert validation.labels.tolist() == [0, 1]
        assert validation.paths == ["v/é.jpg", "v/6.jpg"]
        assert validation.digests.tolist() == [[5] * 32, [6] * 32]
