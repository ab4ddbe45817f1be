import json

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featcache.errors import FormatError, ShardError
from featcache.store.base_store import Store
from featcache.store.feature_file import Features
from featcache.store.feature_writer import Contents, SplitRows, write_feature_file
from featcache.store.packing import pack
from featcache.store.plan import Key
from featcache.store.seal import seal

BASE = {"feature_shape": [2, 2, 3], "dtype": "float32", "name": "tiny"}


def digest(n):
    return bytes([n]) * 32


def key(n, view=0):
    return Key(digest(n), view)


def features_of(numbers):
    return np.array([np.full((2, 2, 3), n) for n in numbers], np.float32).reshape(-1, 2, 2, 3)


def write(folder, train=(1, 2, 3, 4, 5), validation=(6, 7)):
    """Write shards of two rows each and a feature file over them."""
    base_store = Store(folder / "cache").base_store("tiny-1", BASE)
    writer = base_store.writer(2, 1e9)
    for n in range(1, 9):
        writer.add([key(n)], features_of([n]))
    writer.publish()
    splits = {
        "train": SplitRows([f"p/{n}.jpg" for n in train], np.array(train) % 2, [digest(n) for n in train]),
        "validation": SplitRows(
            [f"v/{n}.jpg" for n in validation], np.array(validation) % 2, [digest(n) for n in validation]
        ),
        "test": SplitRows([], np.zeros(0, np.int64), []),
    }
    contents = Contents(("even", "odd"), BASE, {"seed": 0}, [("p/bad.jpg", "empty file")])
    path = folder / "run" / "features.h5"
    write_feature_file(path, splits, writer.locations, base_store, contents)
    return path, base_store


@given(order=st.lists(st.integers(1, 8), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_come_in_the_order_asked_for_whatever_the_shards(tmp_path_factory, order):
    path, _ = write(tmp_path_factory.mktemp("f"), train=order)
    with Features(path) as features:
        X, y = features["train"].load()
        assert np.array_equal(X, features_of(order))
        assert y.tolist() == [n % 2 for n in order]
        blocks = [block for block, _ in features["train"].blocks(3)]
        assert np.array_equal(np.concatenate(blocks), X)
    with h5py.File(path) as file:
        assert np.array_equal(file["train/features"][:], features_of(order))


def test_any_hdf5_tool_reads_it(tmp_path):
    path, _ = write(tmp_path)
    with h5py.File(path) as file:
        assert file["train/features"].shape == (5, 2, 2, 3)
        assert file["train/labels"].dtype == np.int64
        assert file["train/digest"].shape == (5, 32)
        assert file["train/path"].asstr()[0] == "p/1.jpg"
        assert list(file.attrs["classes"]) == ["even", "odd"]
        assert json.loads(file.attrs["base"])["name"] == "tiny"
        assert "test" not in file
        assert np.isnan(file["train/features"].fillvalue)


def test_it_says_what_was_skipped(tmp_path):
    with Features(write(tmp_path)[0]) as features:
        assert features.skipped == [("p/bad.jpg", "empty file")]
        assert features.splits == ["train", "validation"]
        with pytest.raises(KeyError, match="train, validation"):
            features["test"]


def victim_of(path, base_store):
    with h5py.File(path) as file:
        return base_store.shard_folder / file["shards"].asstr()[0]


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("harm", "word"),
    [
        (lambda p: p.unlink(), "missing"),
        (lambda p: p.write_bytes(p.read_bytes()[:-100]), "damaged"),
        (flip, "damaged"),
    ],
)
def test_opening_names_the_shard_that_is_not_whole_and_what_to_do(tmp_path, harm, word):
    path, base_store = write(tmp_path)
    victim = victim_of(path, base_store)
    harm(victim)
    with pytest.raises(ShardError, match=word) as caught:
        Features(path)
    assert victim.name in str(caught.value)
    assert "run the same recipe again" in str(caught.value).lower()


def test_a_shard_that_is_gone_reads_as_nan_elsewhere_never_as_a_number(tmp_path):
    path, base_store = write(tmp_path)
    victim_of(path, base_store).unlink()
    with h5py.File(path) as file:
        everything = [file[split]["features"][:] for split in ("train", "validation")]
        assert any(np.isnan(features).any() for features in everything)


def test_a_packed_file_stands_alone(tmp_path):
    path, base_store = write(tmp_path)
    packed = tmp_path / "one.h5"
    with Features(path) as features:
        pack(features, packed)
        X, y = features["validation"].load()
    for shard in base_store.shard_folder.iterdir():
        shard.unlink()
    with Features(packed) as features:
        assert features.packed
        assert features.classes == ("even", "odd")
        got_X, got_y = features["validation"].load()
        assert np.array_equal(got_X, X)
        assert np.array_equal(got_y, y)
        assert features["train"].paths == [f"p/{n}.jpg" for n in (1, 2, 3, 4, 5)]


def test_a_newer_format_is_refused(tmp_path):
    path, _ = write(tmp_path)
    with path.open("r+b") as file:
        seal(file, number=99)
    with pytest.raises(FormatError, match=r"format 99.*upgrade"):
        Features(path)


def test_files_that_are_no_feature_files_are_refused(tmp_path):
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["x"] = [1]
    text = tmp_path / "text.h5"
    text.write_text("hello")
    for path in (other, text, tmp_path / "absent.h5", tmp_path):
        with pytest.raises(FormatError):
            Features(path)


def test_a_packed_number_that_rots_is_an_error_not_a_number(tmp_path):
    packed = tmp_path / "one.h5"
    with Features(write(tmp_path)[0]) as features:
        pack(features, packed)
    data = packed.read_bytes()
    at = data.index(features_of([3]).tobytes())
    packed.write_bytes(data[:at] + b"\xff" + data[at + 1 :])
    with Features(packed) as features, pytest.raises(FormatError, match="damaged"):
        features["train"].load()


# ---- views -----------------------------------------------------------------------------------------------

VIEWS, AUGMENT = (0, 77, 2**62), {"flip": True, "views": 3}


def number(photo, place):
    return 10 * photo + place


def write_views(folder, order=(3, 1, 2, 5), first=(), rows_per_shard=5):
    """Write the plain photos `first` alone, then all views of all photos one photo after another."""
    base_store = Store(folder / "cache").base_store("tiny-1", BASE)
    writer = base_store.writer(rows_per_shard, 1e9)
    for photo in first:
        writer.add([key(photo)], features_of([number(photo, 0)]))
    writer.publish()
    for photo in order:
        for place, view in enumerate(VIEWS):
            if key(photo, view) not in writer.locations:
                writer.add([key(photo, view)], features_of([number(photo, place)]))
    writer.publish()
    labels = np.array(order) % 2
    paths, digests = [f"p/{n}.jpg" for n in order], [digest(n) for n in order]
    splits = {
        "train": SplitRows(paths, labels, digests, VIEWS, AUGMENT),
        "validation": SplitRows(paths[:1], labels[:1], digests[:1]),
    }
    path = folder / "features.h5"
    write_feature_file(
        path, splits, writer.locations, base_store, Contents(("even", "odd"), BASE, {"seed": 0}, [])
    )
    return path


def all_views(order):
    return features_of([number(photo, place) for photo in order for place in range(3)])


@given(
    order=st.lists(st.integers(1, 9), min_size=1, max_size=9, unique=True),
    first=st.lists(st.integers(1, 9), max_size=9, unique=True),
    rows_per_shard=st.integers(1, 12),
)
@settings(max_examples=40, deadline=None)
def test_views_are_those_of_their_photo_wherever_they_lie(tmp_path_factory, order, first, rows_per_shard):
    folder = tmp_path_factory.mktemp("views")
    path = write_views(folder, order, first, rows_per_shard)
    expected = all_views(order)
    with Features(path) as features:
        train = features["train"]
        assert (len(train), train.views, train.view_numbers) == (len(order), 3, VIEWS)
        assert train.augment == AUGMENT
        X, y = train.load_views()
        assert np.array_equal(X, expected)
        assert y.tolist() == [photo % 2 for photo in order for _ in VIEWS]
        assert np.array_equal(train.load()[0], expected[::3])
        assert np.array_equal(train.read_views(0, 1), expected[:3][None])
        pack(features, folder / "one.h5")
    with h5py.File(path) as file:  # as any HDF5 tool sees it
        assert np.array_equal(file["train/views/features"][:], expected.reshape(-1, 3, 2, 2, 3))
        assert np.array_equal(file["train/features"][:], expected[::3])
    with Features(folder / "one.h5") as features:
        assert np.array_equal(features["train"].load_views()[0], expected)
        assert np.array_equal(features["train"].load()[0], expected[::3])
        assert (features["train"].view_numbers, features["train"].augment) == (VIEWS, AUGMENT)


def test_a_split_without_views_has_the_plain_ones_alone(tmp_path):
    with Features(write_views(tmp_path)) as features:
        validation = features["validation"]
        assert (validation.views, validation.view_numbers, validation.augment) == (1, (0,), {})
        assert validation.read_views(0, 1).shape == (1, 1, 2, 2, 3)
        assert np.array_equal(validation.load_views()[0], validation.load()[0])


def test_rows_in_even_steps_are_one_mapping(tmp_path):
    """HDF5 takes about half a millisecond for each; photo by photo, thousands would be seconds."""
    order = tuple(range(1, 41))
    path = write_views(tmp_path, order, rows_per_shard=1000)
    with h5py.File(path) as file:
        assert len(file["train/views/features"].virtual_sources()) == 3
        assert len(file["train/features"].virtual_sources()) == 1


def write_groups(folder, **columns):
    base_store = Store(folder / "cache").base_store("tiny-1", BASE)
    writer = base_store.writer(2, 1e9)
    writer.add([key(n) for n in range(4)], features_of(range(4)))
    writer.publish()
    paths, digests = [f"p/{n}.jpg" for n in range(4)], [digest(n) for n in range(4)]
    contents = Contents(("even", "odd"), BASE, {}, [], groups=("Zo\u00eb", "\udcff"))
    splits = {
        "train": SplitRows(paths, np.arange(4) % 2, digests, **columns),
        "validation": SplitRows(paths[:1], np.array([0]), digests[:1], groups=np.array([-1])),
    }
    write_feature_file(folder / "features.h5", splits, writer.locations, base_store, contents)
    return folder / "features.h5"


GROUPS, WEIGHTS = np.array([-1, 1, 0, 0]), np.array([0.0, 1.0, 0.25, 1e6])


@pytest.mark.parametrize("packed", [False, True])
def test_groups_and_weights_are_kept(tmp_path, packed):
    path = write_groups(tmp_path, groups=GROUPS, weights=WEIGHTS)
    if packed:
        with Features(path) as features:
            pack(features, tmp_path / "packed.h5")
        path = tmp_path / "packed.h5"
    with Features(path) as features:
        train, validation = features["train"], features["validation"]
        assert features.groups == ("Zo\u00eb", "\udcff")
        assert features.splits == ["train", "validation"]
        assert (train.has_groups, train.has_weights, validation.has_weights) == (True, True, False)
        assert train.groups[1:].tolist() == [1, 0, 0]
        assert train.weights.tolist() == WEIGHTS.tolist()
        # the same photo by itself has the same number in another split
        assert train.groups[0] == validation.groups[0] < 0
        assert validation.weights.tolist() == [1.0]


def test_files_without_groups_and_weights_have_neither(tmp_path):
    path, _ = write(tmp_path)
    with h5py.File(path) as file:
        assert set(file) == {"train", "validation", "findings", "shards", "skipped"}
        assert set(file["train"]) == {"digest", "features", "labels", "path", "row", "shard"}
    with Features(path) as features:
        train = features["train"]
        assert (features.groups, train.has_groups, train.has_weights) == ((), False, False)
        assert len(set(train.groups.tolist())) == 5
        assert train.weights.tolist() == [1.0] * 5


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"groups": np.array([0, 1, 2, 0])}, "'group'"),
        ({"groups": np.array([0, 1, -2, 0])}, "'group'"),
        ({"weights": np.array([1, np.nan, 1, 1])}, "'weight' has values"),
        ({"weights": np.array([1, -1, 1, 1.0])}, "'weight' has values"),
        ({"weights": np.ones(3)}, "'weight' has the shape"),
    ],
)
def test_impossible_groups_and_weights_are_refused(tmp_path, columns, message):
    path = write_groups(tmp_path, **columns)
    with pytest.raises(FormatError, match=message):
        Features(path)
