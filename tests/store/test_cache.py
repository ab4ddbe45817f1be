"""What a store holds and what is removed: only the store's own files, and never those of a base in use."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import run_cli

from featcache.cli import main
from featcache.errors import StoreError
from featcache.store.base_store import Store
from featcache.store.cache import choose, list_cache, prune
from featcache.store.plan import Key

DAY = 24 * 3600.0


def name_of(number, network="Net"):
    return f"{network}-{number:016x}"


def fill(cache, name, photos=2, views=(0,), days=0.0):
    """Write features of a base that was last used so many days ago."""
    store = Store(cache)
    base_store = store.base_store(name, {"image_size": [32, 48], "name": name})
    writer = base_store.writer(100, 60.0)
    keys = [Key(bytes([photo]) * 32, view) for photo in range(photos) for view in views]
    writer.add(keys, np.ones((len(keys), 4), np.float32))
    writer.publish()
    base_store.find(keys, pytest.fail)
    store.save_file(name, "openvino.zip", b"0123456789")
    age(cache / name, days)


def age(folder, days):
    then = time.time() - days * DAY
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (then, then))


def names(bases):
    return [base.name for base in bases]


@pytest.fixture
def cache(tmp_path):
    """A store of three bases: A was used today, B ten days ago and C forty days ago."""
    for number, days in ((1, 0), (2, 10), (3, 40)):
        fill(tmp_path / "cache", name_of(number), days=days)
    return tmp_path / "cache"


A, B, C = name_of(1), name_of(2), name_of(3)


# ---- listing ---------------------------------------------------------------------------------------------


def test_bases_are_listed_with_photos_rows_size_and_last_use(cache):
    fill(cache, name_of(4, "VGG16"), photos=3, views=(0, 7), days=20)
    contents = list_cache(cache)
    assert names(contents.bases) == [A, B, name_of(4, "VGG16"), C]
    base = contents.bases[2]
    assert (base.base, base.image_size, base.photos, base.rows) == ("VGG16", [32, 48], 3, 6)
    files = [path for path in (cache / base.name).rglob("*") if path.is_file()]
    assert base.bytes == sum(path.stat().st_size for path in files)
    assert base.last_used == pytest.approx(time.time() - 20 * DAY, abs=100)
    assert contents.bytes == sum(one.bytes for one in contents.bases)


def test_a_store_that_is_not_there_holds_nothing(tmp_path):
    assert list_cache(tmp_path / "none").bases == ()
    assert not (tmp_path / "none").exists()


def test_what_is_not_of_the_store_is_not_listed(cache, tmp_path):
    (cache / "resolved").mkdir()
    (cache / "notes.txt").write_text("mine")
    (cache / name_of(9)).symlink_to(tmp_path)
    (cache / "photos").mkdir()
    (cache / "photos.sqlite").write_bytes(b"12345")
    (cache / "photos.sqlite-wal").write_bytes(b"123")
    contents = list_cache(cache)
    assert names(contents.bases) == [A, B, C]
    assert contents.index_bytes == 8


def test_a_shard_that_cannot_be_read_is_counted_and_does_not_hide_the_others(cache):
    (shard,) = (cache / B / "shards").glob("*.h5")
    (cache / B / "shards" / f"{'0' * 32}.h5").write_bytes(b"no HDF5")
    (base,) = [base for base in list_cache(cache).bases if base.name == B]
    assert (base.rows, base.unreadable) == (2, 1)
    shard.unlink()
    (base,) = [base for base in list_cache(cache).bases if base.name == B]
    assert (base.rows, base.unreadable) == (0, 1)


def test_reading_features_is_a_use_and_only_looking_at_the_list_is_none(cache):
    before = list_cache(cache).bases[-1].last_used
    assert list_cache(cache).bases[-1].last_used == before
    Store(cache).base_store(C, {"image_size": [32, 48], "name": C}).find([], pytest.fail)
    assert list_cache(cache).bases[0].name == C


def test_a_store_of_another_user_is_not_written_by_reading_it(cache):
    (cache / C / "used").unlink()
    base_store = Store(cache).base_store(C, {})
    base_store.read_only = True
    base_store.check([])
    assert not (cache / C / "used").exists()


# ---- choosing --------------------------------------------------------------------------------------------


def test_bases_are_chosen_by_name_age_and_size(cache):
    fill(cache, name_of(4, "VGG16"), days=35)
    contents, now = list_cache(cache), time.time()
    assert names(choose(contents, now, older=30 * DAY)) == [C, name_of(4, "VGG16")]
    assert names(choose(contents, now, name="VGG16")) == [name_of(4, "VGG16")]
    assert names(choose(contents, now, name=B)) == [B]
    assert names(choose(contents, now, name="Net", older=5 * DAY)) == [C, B]
    size = contents.bases[0].bytes
    assert names(choose(contents, now, max_bytes=contents.bytes)) == []
    assert names(choose(contents, now, max_bytes=contents.bytes - 1)) == [C]
    assert names(choose(contents, now, max_bytes=contents.bytes - size - 100)) == [C, name_of(4, "VGG16")]
    assert names(choose(contents, now, max_bytes=0)) == [C, name_of(4, "VGG16"), B, A]
    with pytest.raises(StoreError, match=r"no base 'VGG'; it has .*Did you mean 'VGG16'"):
        choose(contents, now, name="VGG")


# ---- removing --------------------------------------------------------------------------------------------


def test_only_the_chosen_base_is_removed(cache):
    contents = list_cache(cache)
    removal = prune(cache, [base for base in contents.bases if base.name == B])
    assert (names(removal.removed), removal.in_use, removal.left) == ([B], (), ())
    assert removal.bytes == contents.bases[1].bytes
    assert not (cache / B).exists()
    assert names(list_cache(cache).bases) == [A, C]


def test_what_is_not_of_the_store_stays_and_links_are_not_followed(cache, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    precious = [outside / f"{'0' * 32}.h5", cache / B / "notes.txt", cache / B / "shards" / "mine.h5"]
    for path in precious:
        path.write_text("precious")
    (cache / B / "base.json").unlink()
    (cache / B / "base.json").symlink_to(precious[0])
    (cache / B / "shards" / f"{'1' * 32}.h5").symlink_to(precious[0])
    (cache / C / "shards").rename(cache / C / "before")
    (cache / C / "shards").symlink_to(outside)
    removal = prune(cache, list_cache(cache).bases)
    assert all(path.read_text() == "precious" for path in precious)
    assert (cache / C / "shards").is_symlink()
    assert {path.name for path in removal.left} == {"base.json", "notes.txt", "shards", "before"}


def test_a_base_that_was_used_since_it_was_listed_stays(cache):
    contents = list_cache(cache)
    Store(cache).base_store(C, {"image_size": [32, 48], "name": C}).find([], pytest.fail)
    assert names(prune(cache, contents.bases[2:]).in_use) == [C]
    assert (cache / C / "shards").is_dir()


HOLDER = """
import sys, pathlib
from featcache.store.base_store import Store
name = sys.argv[2]
held = Store(pathlib.Path(sys.argv[1])).base_store(name, {{"image_size": [32, 48], "name": name}})
held.{call}
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("call", ["find([], print)", "check([])", "writer(10, 60.0)"])
def test_a_base_that_another_process_uses_stays_until_that_ends(cache, call):
    command = [sys.executable, "-c", HOLDER.format(call=call), cache, C]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        removal = prune(cache, list_cache(cache).bases)
        assert (set(names(removal.removed)), names(removal.in_use)) == ({A, B}, [C])
        holder.kill()
    assert names(prune(cache, list_cache(cache).bases).removed) == [C]


def test_who_waited_for_a_removal_finds_an_empty_base_and_holds_it(cache):
    """The file with the lock was removed while it was open: a lock on it would exclude nobody."""
    code = (
        "import sys, pathlib\n"
        "from featcache.store.cache import list_cache\n"
        "from featcache.store.usage import removing\n"
        "from featcache.store import cache as store\n"
        "place = pathlib.Path(sys.argv[1])\n"
        "with removing(place) as unused:\n"
        "    print(unused, flush=True); sys.stdin.readline(); store._remove(place)\n"
    )
    command = [sys.executable, "-c", code, cache / C]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as remover:
        assert remover.stdout.readline() == "True\n"
        waiting = [sys.executable, "-c", HOLDER.format(call="writer(10, 60.0)"), cache, C]
        with subprocess.Popen(waiting, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as waiter:
            remover.stdin.write("\n")
            remover.stdin.close()
            assert waiter.stdout.readline() == "held\n"
            assert names(prune(cache, list_cache(cache).bases).in_use) == [C]
            waiter.kill()


# ---- the command line ------------------------------------------------------------------------------------


def test_prune_only_shows_what_would_go_until_yes(cache, capfd):
    words = ["cache", "prune", "--older", "30d", "--cache", str(cache)]
    assert main(words) == 0
    shown = capfd.readouterr().out
    assert C in shown
    assert B not in shown
    assert "--yes" in shown
    assert (cache / C).is_dir()
    assert main([*words, "--yes"]) == 0
    assert "Removed 1 base" in capfd.readouterr().out
    assert not (cache / C).exists()


@pytest.mark.parametrize(
    "wrong", [(), ("--older", "30"), ("--older", "-3d"), ("--max-size", "ten"), ("--max-size", "nan")]
)
def test_prune_must_say_what_goes(cache, wrong, capfd):
    assert main(["cache", "prune", *wrong, "--yes", "--cache", str(cache)]) == 2
    assert names(list_cache(cache).bases) == [A, B, C]


def test_the_commands_print_json_and_take_the_store_of_the_environment(cache, capfd):
    import json

    printed = json.loads(run_cli("cache", "--json", FEATCACHE_CACHE=str(cache)).stdout)
    assert [base["name"] for base in printed["bases"]] == [A, B, C]
    assert printed["bytes"] == list_cache(cache).bytes
    done = run_cli("cache", "prune", "--max-size", "0", "--json", FEATCACHE_CACHE=str(cache))
    printed = json.loads(done.stdout)
    assert [base["name"] for base in printed["chosen"]] == [C, B, A]
    assert printed["removed"] == []
    assert names(list_cache(cache).bases) == [A, B, C]
