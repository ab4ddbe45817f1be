"""Feature files that were made to mislead: their seal is right, what they say is not."""

import os
import resource
import signal

import h5py
import numpy as np
import pytest
from test_feature_file import write

from featcache.errors import FeatcacheError, ShardError
from featcache.store.feature_file import Features
from featcache.store.packing import pack
from featcache.store.seal import seal


@pytest.fixture
def normal(tmp_path):
    return write(tmp_path)[0]


@pytest.fixture
def packed(tmp_path, normal):
    with Features(normal) as features:
        pack(features, tmp_path / "one.h5")
    return tmp_path / "one.h5"


def replace(group, name, **how):
    del group[name]
    group.create_dataset(name, **how)


def external(file):
    replace(file["train"], "features", shape=(5, 2, 2, 3), dtype="f4", external=[("secret", 0, 240)])


def virtual(file):
    del file["train/features"]
    layout = h5py.VirtualLayout((5, 2, 2, 3), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (5, 2, 2, 3))
    file["train"].create_virtual_dataset("features", layout)


def link(file, to):
    del file["train/features"]
    file["train/features"] = to


HARM = {
    "external storage": external,
    "virtual dataset": virtual,
    "external link": lambda f: link(f, h5py.ExternalLink("other.h5", "x")),
    "soft link": lambda f: link(f, h5py.SoftLink("/validation/features")),
    "label above": lambda f: f["train/labels"].__setitem__(0, 2),
    "label below": lambda f: f["train/labels"].__setitem__(0, -1),
    "short labels": lambda f: replace(f["train"], "labels", data=np.zeros(3, np.int64)),
    "8 TiB of labels": lambda f: replace(f["train"], "labels", shape=(1 << 40,), dtype="i8", chunks=(1024,)),
    "compressed": lambda f: replace(f["train"], "labels", data=np.zeros(5, np.int64), compression="gzip"),
    "float labels": lambda f: replace(f["train"], "labels", data=np.zeros(5)),
    "text as features": lambda f: replace(f["train"], "features", data=np.array([b"x"] * 5)),
    "digest of 31 bytes": lambda f: replace(f["train"], "digest", data=np.zeros((5, 31), np.uint8)),
    "numbers as paths": lambda f: replace(f["train"], "path", data=np.zeros(5)),
    "group as labels": lambda f: (f["train"].pop("labels"), f["train"].create_group("labels")),
    "no labels": lambda f: f["train"].pop("labels"),
    "classes 5": lambda f: f.attrs.__setitem__("classes", 5),
    "base a list": lambda f: f.attrs.__setitem__("base", "[1]"),
    "base deep": lambda f: f.attrs.__setitem__("base", "[" * 60_000),
    "dtype object": lambda f: f.attrs.__setitem__("base", '{"feature_shape": [2, 2, 3], "dtype": "object"}'),
    "huge shape": lambda f: f.attrs.__setitem__("base", '{"feature_shape": [1e99], "dtype": "float32"}'),
    "recipe bytes": lambda f: f.attrs.__setitem__("recipe", np.bytes_(b"\xff\xfe")),
    "format 0": lambda f: f.attrs.__setitem__("format", 0),
    "format 1": lambda f: f.attrs.__setitem__("format", 1),
    "unknown member": lambda f: f.__setitem__("weird", np.arange(3)),
    "no skipped": lambda f: f.pop("skipped"),
}


def harm(path, change):
    with h5py.File(path, "r+") as file:
        change(file)
    with path.open("r+b") as file:
        seal(file)


@pytest.mark.parametrize("name", HARM)
def test_a_packed_file_is_refused_with_one_line(packed, monkeypatch, name):
    monkeypatch.chdir(packed.parent)
    packed.with_name("secret").write_bytes(b"SECR" * 400)
    with h5py.File(packed.with_name("other.h5"), "w") as other:
        other["x"] = np.full((5, 2, 2, 3), 7, np.float32)
    harm(packed, HARM[name])
    with pytest.raises(FeatcacheError) as caught:
        Features(packed)
    assert "\n" not in str(caught.value)
    assert str(packed) in str(caught.value)


def names(*values):
    return lambda f: replace(f, "shards", data=np.array(values, dtype="S80"))


NORMAL_HARM = {
    "no store": lambda f: f.attrs.pop("store"),
    "store a number": lambda f: f.attrs.__setitem__("store", 5),
    "shard above the store": names(b"../../../../etc/passwd"),
    "shard of another name": names(b"notes.h5"),
    "shard index": lambda f: f["train/shard"].__setitem__(0, 99),
    "negative row": lambda f: f["train/row"].__setitem__(0, -1),
    "row behind the shard": lambda f: f["train/row"].__setitem__(0, 99),
}


@pytest.mark.parametrize("name", NORMAL_HARM)
def test_a_normal_file_is_refused_with_one_line(normal, name):
    harm(normal, NORMAL_HARM[name])
    with pytest.raises(FeatcacheError) as caught, Features(normal) as features:
        features["train"].load()
    assert "\n" not in str(caught.value)


def rot(path):
    """Change a number of a shard and keep size and times as the store remembers them."""
    data = bytearray(path.read_bytes())
    at = data.index(np.full((2, 2, 3), 1, np.float32).tobytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("own", [True, False])
def test_only_the_users_own_store_is_written(tmp_path, monkeypatch, own):
    path, base_store = write(tmp_path)
    monkeypatch.setattr("featcache.store.base_store.shards.check_bytes", lambda _: None)
    with Features(path, tmp_path / "cache" if own else None) as features:
        monkeypatch.undo()
        before = {shard: shard.name for shard in base_store.shard_folder.iterdir()}
        victim = next(shard for shard in before if np.float32(1).tobytes() * 12 in shard.read_bytes())
        rot(victim)
        with pytest.raises(ShardError, match=victim.name):
            features["train"].load()
    assert victim.exists() == (not own)


def test_names_that_are_not_utf8_keep_their_bytes(tmp_path):
    strange = os.fsdecode(b"caf\xe9_\xff")
    folder = tmp_path / strange
    path, _ = write(folder)
    with Features(path) as features:
        pack(features, folder / "one.h5")
    with Features(folder / "one.h5") as features:
        assert len(features["train"].load()[0]) == 5


@pytest.mark.parametrize("what", ["pipe", "device", "folder", "absent", "text"])
def test_what_is_not_a_feature_file_is_refused(tmp_path, what):
    place = tmp_path / "x.h5"
    {
        "pipe": lambda: os.mkfifo(place),
        "device": lambda: place.symlink_to("/dev/zero"),
        "folder": place.mkdir,
        "absent": lambda: None,
        "text": lambda: place.write_text("hello"),
    }[what]()
    with pytest.raises(FeatcacheError, match=r"x\.h5"):
        Features(place)


def test_a_file_that_may_not_be_read_is_not_called_damaged(normal, monkeypatch):
    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("featcache.files.os.open", refused)
    with pytest.raises(FeatcacheError, match="cannot be read: Permission denied"):
        Features(normal)


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, normal):
    """In HDF5's own hands this is a crash; here every write is Python's."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with Features(normal) as features, pytest.raises(FeatcacheError):
            pack(features, tmp_path / "out" / "one.h5")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "out").iterdir()) == []
