import errno
import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featcache.errors import ShardError, StoreError
from featcache.store import base_store as base_store_module
from featcache.store import shards
from featcache.store.base_store import BaseStore, Store
from featcache.store.plan import Key

BASE = {"feature_shape": [3], "dtype": "float32"}


def keys_of(*numbers):
    return [Key(bytes([n]) * 32, 0) for n in numbers]


def features_of(*numbers):
    return np.array([[n, n + 0.5, -n] for n in numbers], np.float32)


def filled_base_store(folder, batches=((1, 2), (3, 4), (5,)), rows_per_shard=2):
    base_store = Store(folder).base_store("base-1", BASE)
    writer = base_store.writer(rows_per_shard, 1e9)
    for batch in batches:
        writer.add(keys_of(*batch), features_of(*batch))
    writer.publish()
    return base_store


def quiet(_):
    raise AssertionError("nothing should be said of a whole store")


def test_what_was_written_is_found_and_read_back(tmp_path):
    base_store = filled_base_store(tmp_path)
    wanted = keys_of(4, 1, 5, 9)
    found = base_store.find(wanted, quiet)
    assert set(found) == set(keys_of(4, 1, 5))
    places = [found[key] for key in keys_of(4, 1, 5)]
    assert np.array_equal(base_store.read(places, (3,), np.float32), features_of(4, 1, 5))


def test_a_shard_is_named_by_its_content_and_equal_runs_write_one_file(tmp_path):
    first, second = (
        shards.write_shard(tmp_path, keys_of(1, 2), features_of(1, 2), BASE),
        shards.write_shard(tmp_path, keys_of(1, 2), features_of(1, 2), BASE),
    )
    other = shards.write_shard(tmp_path, keys_of(1, 3), features_of(1, 3), BASE)
    assert first == second != other
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({first.name, other.name})


def test_equal_rows_of_different_seconds_are_one_shard(tmp_path):
    first = shards.write_shard(tmp_path, keys_of(1, 2), features_of(1, 2), BASE)
    second = int(time.time())
    while int(time.time()) == second:  # HDF5 stores times in whole seconds
        time.sleep(0.05)
    assert shards.write_shard(tmp_path, keys_of(1, 2), features_of(1, 2), BASE) == first


def test_facts_lie_beside_the_rows_and_are_checked(tmp_path):
    store = BaseStore(tmp_path / "base", BASE)
    writer = store.writer(10, 60.0, fact_names=("width", "blur"))
    facts = np.array([[3, 4], [5, 6], [7, 8]], np.float32)
    writer.add(keys_of(1, 2, 3), features_of(1, 2, 3), [1, 0, 1], facts)
    writer.publish()
    places = [writer.locations[key] for key in keys_of(1, 2, 3)]
    assert [place.row for place in places] == [1, 0, 2], "sorted by rank"
    found = store.facts([places[2], places[0]], ["blur", "unknown"])
    assert np.array_equal(found, np.array([[8, np.nan], [4, np.nan]], np.float32), equal_nan=True)
    path = store.shard_folder / places[0].shard
    with h5py.File(path, "r+") as file:
        file["facts"][0, 0] = 99
    with pytest.raises(shards.DamagedShardError):
        store.facts(places, ["blur"])


def test_shards_without_facts_have_none(tmp_path):
    store = BaseStore(tmp_path / "base", BASE)
    writer = store.writer(10, 60.0)
    writer.add(keys_of(1), features_of(1))
    writer.publish()
    assert np.isnan(store.facts(list(writer.locations.values()), ["blur"])).all()


def test_a_shard_is_as_documented(tmp_path):
    path = shards.write_shard(tmp_path, keys_of(1, 2), features_of(1, 2), BASE)
    with h5py.File(path) as file:
        assert file["features"].shape == (2, 3)
        assert file["features"].fletcher32
        assert file["digest"].shape == (2, 32)
        assert file["digest"].dtype == np.uint8
        assert file["view"][:].tolist() == [0, 0]
        assert file["features_sha256"].shape == (1, 32)
        assert set(file.attrs) == {"format", "base", "versions", "keys_sha256"}


def test_shards_are_closed_between_batches_only(tmp_path):
    base_store = filled_base_store(tmp_path, batches=((1, 2, 3), (4, 5, 6), (7,)), rows_per_shard=4)
    counts = sorted(len(shards.read_keys(path, BASE).view) for path in base_store.shard_folder.glob("*.h5"))
    assert counts == [1, 6]


def test_a_deleted_shard_costs_its_rows_only(tmp_path):
    base_store = filled_base_store(tmp_path)
    gone = base_store.find(keys_of(1), quiet)[keys_of(1)[0]].shard
    (base_store.shard_folder / gone).unlink()
    assert set(base_store.find(keys_of(1, 2, 3, 4, 5), quiet)) == set(keys_of(3, 4, 5))
    with pytest.raises(ShardError, match=gone):
        base_store.check([gone])


def damage(data: bytes, how: str, at: float, junk: bytes) -> bytes:
    place = int(at * (len(data) - 1))
    return {
        "cut": data[:place],
        "flip": data[:place] + bytes([data[place] ^ 0x40]) + data[place + 1 :],
        "random": junk,
        "other format": b"\x89PNG\r\n\x1a\n" + data[8:],
        "longer": data + b"\0",
    }[how]


@given(
    how=st.sampled_from(["cut", "flip", "random", "other format", "longer"]),
    at=st.floats(0, 1),
    junk=st.binary(max_size=3000),
)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_broken_shard_is_set_aside_and_only_its_rows_are_missing(tmp_path, how, at, junk):
    shutil.rmtree(tmp_path)
    base_store = filled_base_store(tmp_path)
    everything = keys_of(1, 2, 3, 4, 5)
    base_store.find(everything, quiet)
    victim = sorted(base_store.shard_folder.glob("*.h5"))[0]
    lost = set(shards.read_keys(victim, BASE).keys())
    victim.write_bytes(damage(victim.read_bytes(), how, at, junk))
    with pytest.raises(ShardError, match=victim.name):
        base_store.check([victim.name])
    said = []
    found = base_store.find(everything, said.append)
    assert set(found) == set(everything) - lost
    assert len(said) == 1
    assert victim.name in said[0]
    assert not victim.exists()
    assert base_store.find(everything, quiet) == found


def test_bytes_that_rot_without_a_new_time_stamp_are_found_when_they_are_read(tmp_path, monkeypatch):
    base_store = filled_base_store(tmp_path)
    found = base_store.find(keys_of(1), quiet)
    path = base_store.shard_folder / found[keys_of(1)[0]].shard
    data = path.read_bytes()
    at = data.index(features_of(1).tobytes())
    path.write_bytes(data[:at] + b"\xff" + data[at + 1 :])
    with pytest.raises(ShardError, match="damaged"):
        base_store.read([found[keys_of(1)[0]]], (3,), np.float32)
    assert not path.exists()


def test_a_shard_of_a_newer_format_is_left_alone_and_said(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_FORMAT", 99)
    base_store = filled_base_store(tmp_path)
    monkeypatch.undo()
    said = []
    assert base_store.find(keys_of(1), said.append) == {}
    assert "format 99" in said[0]
    assert len(list(base_store.shard_folder.glob("*.h5"))) == 3


def test_nothing_half_is_left_when_writing_fails(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("featcache.files.flush_to_disk", full)
    with pytest.raises(StoreError, match="disk is full"):
        shards.write_shard(tmp_path, keys_of(1), features_of(1), BASE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ['{"a": [1', "[1]", "\xff", "[" * 100_000, "1" * 5000])
def test_a_saved_spec_is_loaded_and_a_damaged_one_is_a_miss(tmp_path, damage):
    store = Store(tmp_path)
    assert store.load_spec("q") is None
    store.save_spec("q", {"a": [1, 2]})
    assert store.load_spec("q") == {"a": [1, 2]}
    (tmp_path / "resolved" / "q.json").write_bytes(damage.encode("latin-1"))
    assert store.load_spec("q") is None


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc", "a\\b", ".hidden", "a\0b", "c:x"])
def test_a_name_that_leads_out_of_the_store_is_rejected(tmp_path, name):
    store = Store(tmp_path / "cache")
    for use in (
        lambda: store.base_store(name, BASE),
        lambda: store.save_file(name, "openvino.zip", b""),
        lambda: store.save_file("base", name, b""),
        lambda: store.load_file(name, "openvino.zip"),
        lambda: store.save_spec(name, {}),
    ):
        with pytest.raises(StoreError, match="cannot be the name"):
            use()
    assert list(tmp_path.iterdir()) == []


def with_attribute_damaged(path):
    data = path.read_bytes()
    at = data.index(b'"feature_shape"')
    path.write_bytes(data[:at] + b"\0" + data[at + 1 :])


def test_an_attribute_that_rots_without_a_new_time_stamp_is_damage(tmp_path, monkeypatch):
    base_store = filled_base_store(tmp_path)
    victim = sorted(base_store.shard_folder.glob("*.h5"))[0]
    with_attribute_damaged(victim)
    monkeypatch.setattr(base_store, "_load_verified", lambda: {victim.name: base_store_module._stat(victim)})
    said = []
    base_store.find(keys_of(1), said.append)
    assert len(said) == 1
    assert "damaged" in said[0]
    assert victim.with_suffix(".damaged").exists()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE, errno.EIO, errno.ESTALE, errno.EAGAIN])
@pytest.mark.parametrize("trusted", [True, False])
def test_a_shard_that_cannot_be_read_is_left_and_named(tmp_path, monkeypatch, number, trusted):
    base_store = filled_base_store(tmp_path)
    if trusted:
        base_store.find([], quiet)
    before = sorted(base_store.folder.rglob("*"))

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("featcache.files.os.open", fail)
    monkeypatch.setattr("featcache.store.reading.h5py.File", fail)
    with pytest.raises(StoreError, match=os.strerror(number)) as caught:
        base_store.find(keys_of(1), quiet)
    monkeypatch.undo()
    assert not isinstance(caught.value, ShardError)
    assert ".h5" in str(caught.value)
    assert sorted(base_store.folder.rglob("*")) == before
    assert set(base_store.find(keys_of(1), quiet)) == set(keys_of(1))


def test_a_good_shard_that_hdf5_cannot_read_now_is_not_damage(tmp_path, monkeypatch):
    base_store = filled_base_store(tmp_path)
    found = base_store.find(keys_of(1), quiet)

    def fail(*_, **__):
        raise KeyError("unable to read the object header (errno = 5)")

    monkeypatch.setattr("featcache.store.shards.dataset", fail)
    with pytest.raises(StoreError, match="left as it is"):
        base_store.read([found[keys_of(1)[0]]], (3,), np.float32)
    assert len(list(base_store.shard_folder.glob("*.h5"))) == 3


def test_a_shard_of_another_base_is_left_and_not_used(tmp_path):
    base_store = filled_base_store(tmp_path)
    other = shards.write_shard(base_store.shard_folder, keys_of(9), features_of(9), BASE | {"name": "other"})
    said = []
    assert base_store.find(keys_of(9), said.append) == {}
    assert "another base" in said[0]
    assert other.exists()


def test_a_file_without_the_name_of_a_shard_is_left_and_said(tmp_path):
    base_store = filled_base_store(tmp_path)
    (base_store.shard_folder / "notes.h5").write_bytes(b"mine")
    said = []
    base_store.find(keys_of(1), said.append)
    assert "notes.h5" in said[0]
    assert (base_store.shard_folder / "notes.h5").exists()


@pytest.mark.parametrize(
    "verified", ["[]", '{"../../x.h5": [1, 2, 3]}', '{"%s": "yes"}', '{"%s": {"a": 1}}', "\0", "[" * 100_000]
)
def test_verified_json_of_any_content_does_no_harm(tmp_path, verified):
    base_store = filled_base_store(tmp_path)
    names = sorted(path.name for path in base_store.shard_folder.iterdir())
    (base_store.folder / "verified.json").write_text(verified.replace("%s", names[0]))
    assert len(base_store.find(keys_of(1, 2, 3, 4, 5), quiet)) == 5
    assert sorted(json.loads((base_store.folder / "verified.json").read_text())) == names


def test_a_damaged_base_json_is_written_again(tmp_path):
    base_store = filled_base_store(tmp_path)
    whole = (base_store.folder / "base.json").read_bytes()
    (base_store.folder / "base.json").write_bytes(whole[:20])
    base_store.writer(2, 1e9)
    assert (base_store.folder / "base.json").read_bytes() == whole


def test_threads_write_shards_at_the_same_time(tmp_path):
    def write(number):
        return shards.write_shard(tmp_path, keys_of(number), features_of(number), BASE)

    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(write, range(100)))
    for number, path in enumerate(paths):
        assert shards.read_keys(path, BASE).keys() == keys_of(number)


def test_the_names_of_version_0_1_still_work(tmp_path):
    import featcache.store.shelf as old

    assert old is base_store_module
    assert old.Shelf is BaseStore
