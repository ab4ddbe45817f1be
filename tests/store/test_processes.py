"""Several processes use one store at once, or lose it while they write."""

import shutil
import subprocess
import sys

import numpy as np
import pytest

from featcache.store import shards
from featcache.store.base_store import BaseStore, Store
from featcache.store.plan import Key

WRITE = """
import sys, pathlib, numpy as np
from featcache.errors import FeatcacheError
from featcache.store.base_store import Store
from featcache.store.plan import Key

folder, name, batches = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
base = {"feature_shape": [3], "dtype": "float32", "name": name}
try:
    store = Store(folder)
    store.save_spec("shared", base)
    base_store = store.base_store(name, base)
    writer = base_store.writer(1, 1e9)
    for batch in range(batches):
        writer.add([Key(bytes([batch]) * 32, 0)], np.full((1, 3), batch, np.float32))
        print(batch, flush=True)
    print(len(base_store.find([Key(bytes([n]) * 32, 0) for n in range(batches)], print)), "found")
except FeatcacheError as error:
    print("error:", error)
"""


def start(folder, name, batches):
    command = [sys.executable, "-c", WRITE, folder, name, str(batches)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("bases", [["a", "b", "c", "d", "e", "f"], ["a"] * 6], ids=["six bases", "one base"])
def test_six_processes_write_to_one_store(tmp_path, bases):
    children = [start(tmp_path, name, 8) for name in bases]
    for child in children:
        out, err = child.communicate()
        assert out.splitlines()[-1] == "8 found", out + err
    store = Store(tmp_path)
    assert store.load_spec("shared")["name"] in bases
    wanted = [Key(bytes([n]) * 32, 0) for n in range(8)]
    for name in set(bases):
        base = {"feature_shape": [3], "dtype": "float32", "name": name}
        found = store.base_store(name, base).find(wanted, pytest.fail)
        rows = store.base_store(name, base).read([found[key] for key in wanted], (3,), np.float32)
        assert rows[:, 0].tolist() == list(range(8))
    assert not list(tmp_path.rglob("*.aside"))


@pytest.mark.parametrize("how", ["deleted", "moved"])
def test_a_store_that_goes_away_under_a_running_process(tmp_path, how):
    """The process ends in order, and every shard that is there afterwards is whole."""
    child = start(tmp_path / "cache", "a", 60)
    for _ in range(5):
        child.stdout.readline()
    if how == "moved":
        (tmp_path / "cache").rename(tmp_path / "elsewhere")
    else:
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    out, err = child.communicate()
    last = out.splitlines()[-1]
    assert child.returncode == 0, err
    assert last.startswith("error: ") or last.endswith(" found")
    for path in tmp_path.rglob("*/shards/*.h5"):
        shards.check_bytes(path)
    base = {"feature_shape": [3], "dtype": "float32", "name": "a"}
    wanted = [Key(bytes([n]) * 32, 0) for n in range(60)]
    assert len(BaseStore(tmp_path / "cache" / "a", base).find(wanted, pytest.fail)) < 60
