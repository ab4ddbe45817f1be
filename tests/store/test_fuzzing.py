"""Mutated files are refused or read as before; they never give other content and never crash the process."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from fuzzing import mutations, outcomes
from test_feature_file import write_views

from featcache.store.base_store import BaseStore, _stat
from featcache.store.feature_file import Features
from featcache.store.packing import pack
from featcache.store.plan import Key

COUNTS = [pytest.param(100, id="100"), pytest.param(5000, id="5000", marks=pytest.mark.slow)]


def content(path) -> str:
    """Return a hash of all that a feature file says."""
    with Features(path) as features:
        digest = hashlib.sha256(repr((features.classes, features.splits, features.skipped)).encode())
        digest.update(json.dumps([features.base, features.recipe], sort_keys=True).encode())
        for name in features.splits:
            split = features[name]
            for part in (*split.load(), split.load_views()[0], split.digests):
                digest.update(part.tobytes())
            digest.update(repr((split.paths, split.view_numbers, split.augment)).encode())
        return digest.hexdigest()


def fuzz_feature_file(path, count):
    def read(data):
        mutated = path.with_name("mutated.h5")
        mutated.write_bytes(data)
        return content(mutated)

    return outcomes(mutations(path.read_bytes(), count, seed=1), read, content(path))


@pytest.mark.parametrize("count", COUNTS)
def test_feature_files(tmp_path, count):
    found = fuzz_feature_file(write_views(tmp_path), count)
    assert set(found) <= {"same", "refused"}, found


@pytest.mark.parametrize("count", COUNTS)
def test_packed_files(tmp_path, count):
    with Features(write_views(tmp_path)) as features:
        pack(features, tmp_path / "one.h5")
    found = fuzz_feature_file(tmp_path / "one.h5", count)
    assert set(found) <= {"same", "refused"}, found


def store_of(tmp_path):
    write_views(tmp_path)
    folder = tmp_path / "cache" / "tiny-1"
    base = json.loads((folder / "base.json").read_text())
    base.pop("format")
    return BaseStore(folder, base)


WANTED = [Key(bytes([photo]) * 32, view) for photo in (3, 1, 2, 5) for view in (0, 77, 2**62)]


def rows_of(store, wanted) -> dict[Key, bytes]:
    found = store.find(wanted, lambda _: None)
    places = [found[key] for key in wanted if key in found]
    rows = store.read(places, (2, 2, 3), np.float32) if places else np.zeros(0)
    return dict(zip([key for key in wanted if key in found], map(bytes, rows), strict=True))


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("count", COUNTS)
def test_shards(tmp_path, count, trusted):
    """`trusted`: the bytes rot without a new size or time: the hash of the file is not compared first."""
    store = store_of(tmp_path)
    whole = rows_of(store, WANTED)
    victim = sorted(store.shard_folder.glob("*.h5"))[0]

    def read(data):
        copy = BaseStore(tmp_path / "copy", store.base)
        shutil.copytree(store.folder, copy.folder, dirs_exist_ok=True)
        (copy.shard_folder / victim.name).write_bytes(data)
        if trusted:
            stats = {path.name: _stat(path) for path in copy.shard_folder.glob("*.h5")}
            (copy.folder / "verified.json").write_text(json.dumps(stats))
        rows = rows_of(copy, WANTED)
        return "equal" if all(whole[key] == row for key, row in rows.items()) else "other"

    found = outcomes(mutations(victim.read_bytes(), count, seed=2), read, "equal")
    assert set(found) <= {"same", "refused"}, found


@pytest.mark.parametrize("name", ["base.json", "verified.json"])
def test_what_lies_beside_the_shards(tmp_path, name):
    store = store_of(tmp_path)
    whole = rows_of(store, WANTED)

    def read(data):
        (store.folder / name).write_bytes(data)
        store.writer(1, 1e9)
        return "equal" if rows_of(BaseStore(store.folder, store.base), WANTED) == whole else "other"

    original = (store.folder / name).read_bytes()
    found = outcomes(mutations(original, 100, seed=3), read, "equal")
    assert set(found) == {"same"}, found
