"""Stage 1 as its users see it: what is computed, what is reused, what is refused."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import TINY_BASE, make_photo, make_photos, tiny_recipe

from featcache import processor
from featcache.bases.base import Base
from featcache.errors import BaseNetworkError, DataError, FeaturesError, StoreError
from featcache.extraction import compute as extraction
from featcache.extraction.stage import extract
from featcache.recipe import Recipe
from featcache.report import facts
from featcache.reporter import SILENT
from featcache.runtime import keras
from featcache.store.base_store import Store


def load_all(extracted):
    """Everything that a feature file says, by path."""
    with extracted.open() as features:
        return {
            path: (split, label, row)
            for split in features.splits
            for path, label, row in zip(
                features[split].paths, features[split].labels, features[split].load()[0], strict=True
            )
        }


def same_rows(one, other):
    return one.keys() == other.keys() and all(
        a[:2] == b[:2] and np.array_equal(a[2], b[2])
        for a, b in zip(one.values(), other.values(), strict=True)
    )


def test_the_second_run_computes_nothing_and_gives_the_same(recipe):
    first = extract(recipe)
    assert (first.rows, first.computed, first.reused, first.skipped) == (24, 24, 0, ())
    rows = load_all(first)
    second = extract(recipe)
    assert (second.rows, second.computed, second.reused) == (24, 0, 24)
    assert same_rows(load_all(second), rows)


def test_labels_stand_beside_their_own_photos_features(recipe):
    rows = load_all(extract(recipe))
    with extract(recipe).open() as features:
        classes = features.classes
    assert {Path(path).parent.name for path in rows} == set(classes)
    assert all(classes[label] == Path(path).parent.name for path, (_, label, _) in rows.items())


def test_relabelling_renaming_and_moving_compute_nothing(recipe, photos, tmp_path):
    before = load_all(extract(recipe))
    (photos / "cat").rename(photos / "tmp")
    (photos / "dog").rename(photos / "cat")
    (photos / "tmp").rename(photos / "dog")
    for photo in (photos / "cat").iterdir():
        photo.rename(photo.with_name(f"renamed-{photo.name}"))
    moved = extract(recipe)
    assert moved.computed == 0
    after = {
        Path(path).name.removeprefix("renamed-") + str(1 - label): row
        for path, (_, label, row) in load_all(moved).items()
    }
    for path, (_, label, row) in before.items():
        assert np.array_equal(after[Path(path).name + str(label)], row)


def test_a_replaced_photo_is_noticed_although_its_name_is_the_same(recipe, photos):
    old = load_all(extract(recipe))
    victim = photos / "cat" / "003.png"
    stat = victim.stat()
    make_photo(victim, seed=77_777)
    os.utime(victim, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again = extract(recipe)
    assert again.computed == 1
    assert not np.array_equal(load_all(again)[str(victim)][2], old[str(victim)][2])


def test_a_photo_that_stands_twice_is_computed_once(recipe, photos):
    shutil.copy(photos / "cat" / "000.png", photos / "cat" / "copy.png")
    result = extract(recipe)
    assert (result.rows, result.computed, result.reused) == (25, 24, 1)
    rows = load_all(result)
    one, copy = rows[str(photos / "cat" / "000.png")], rows[str(photos / "cat" / "copy.png")]
    assert one[0] == copy[0], "byte-equal photos fall on one side"
    assert np.array_equal(one[2], copy[2])


def test_two_data_sets_share_work(recipe, photos, tmp_path):
    extract(recipe)
    shutil.copytree(photos, tmp_path / "other")
    make_photo(tmp_path / "other" / "cat" / "new.png", seed=55_555)
    assert extract(tiny_recipe(tmp_path, tmp_path / "other")).computed == 1


def test_another_setting_of_the_base_is_another_base_store(recipe, photos, tmp_path):
    extract(recipe)
    assert extract(tiny_recipe(tmp_path, photos, pooling="max")).computed == 24
    assert extract(tiny_recipe(tmp_path, photos, batch_size=5)).computed == 0


def test_files_that_are_no_photos_are_skipped_and_listed(recipe, photos):
    (photos / "cat" / "empty.jpg").touch()
    (photos / "dog" / "text.jpg").write_text("not a photo")
    good = (photos / "dog" / "001.png").read_bytes()
    (photos / "dog" / "cut.png").write_bytes(good[: len(good) // 2])
    result = extract(recipe)
    assert result.rows == 24
    reasons = {Path(path).name: reason for path, reason in result.skipped}
    assert set(reasons) == {"empty.jpg", "text.jpg", "cut.png"}
    assert "empty" in reasons["empty.jpg"]
    with result.open() as features:
        assert len(features.skipped) == 3
    assert extract(recipe).computed == 0


def test_strict_makes_a_skipped_photo_an_error(recipe, photos):
    (photos / "cat" / "empty.jpg").touch()
    strict = recipe.model_copy(update={"data": recipe.data.model_copy(update={"strict": True})})
    with pytest.raises(DataError, match=r"empty\.jpg"):
        extract(strict)


def test_a_class_without_a_readable_photo_is_an_error(recipe, photos):
    for photo in (photos / "cat").iterdir():
        photo.write_bytes(b"\xff\xd8\xff broken")
    with pytest.raises(DataError, match="'cat' has no readable photo"):
        extract(recipe)


def test_all_photos_broken_is_an_error_and_needs_no_network(recipe, photos):
    extract(recipe)
    for photo in photos.rglob("*.png"):
        photo.write_bytes(b"broken " + photo.name.encode() + photo.parent.name.encode())
    with pytest.raises(DataError, match="no readable photo"):
        extract(recipe)


def test_the_class_order_of_the_file_does_not_depend_on_what_was_there_before(
    recipe, photos, tmp_path, tiny_store
):
    reference = load_all(extract(recipe))
    shutil.copytree(tiny_store, tmp_path / "cache2")
    fresh = recipe.model_copy(update={"cache": tmp_path / "cache2", "run": tmp_path / "run2"})
    half = tmp_path / "half"
    for number in (3, 5, 7):
        for name in ("cat", "dog"):
            make_dir = half / name
            make_dir.mkdir(parents=True, exist_ok=True)
            shutil.copy(photos / name / f"{number:03}.png", make_dir)
    extract(
        Recipe.parse(
            {"data": {"root": str(half), "split": {"train": 1.0, "validation": 0.0}}, "base": TINY_BASE}
            | {"cache": str(fresh.cache), "run": str(fresh.run)}
        )
    )
    result = extract(fresh)
    assert result.computed == 18
    assert list(load_all(result)) == list(reference)


def test_a_damaged_shard_is_computed_again(recipe):
    first = extract(recipe)
    rows = load_all(first)
    shard = next(recipe.cache.rglob("shards/*.h5"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(bytes(data))
    again = extract(recipe)
    assert again.computed == 24
    assert same_rows(load_all(again), rows)


def test_values_that_are_no_numbers_are_refused_and_nothing_is_published(recipe, monkeypatch):
    monkeypatch.setattr(
        "featcache.bases.openvino.OpenVINOEngine.__call__",
        lambda self, x: np.full((len(x), 1280), np.nan, np.float32),
    )
    with pytest.raises(FeaturesError, match=r"not finite.*in the batch from .*\.png on"):
        extract(recipe)
    assert not list(recipe.cache.rglob("shards/*.h5"))


@pytest.fixture
def loud_base(tmp_path) -> str:
    """A base whose features of any photo are far above what float16 holds."""
    layers, path = keras().layers, tmp_path / "loud.keras"
    loud = layers.Conv2D(2, 3, strides=8, kernel_initializer=keras().initializers.Constant(100.0))
    keras().Sequential([keras().Input((32, 32, 3)), loud]).save(path)
    return str(path)


def test_a_value_that_float16_cannot_hold_is_refused_and_nothing_is_published(loud_base, photos, tmp_path):
    loud = {"name": loud_base, "arguments": {}, "weights": "imagenet"}
    with pytest.raises(
        FeaturesError, match=r"float16 holds at most 65504; use --dtype float32 \(in the batch"
    ):
        extract(tiny_recipe(tmp_path, photos, **loud, dtype="float16"))
    assert not list((tmp_path / "cache").rglob("shards/*"))
    result = extract(tiny_recipe(tmp_path, photos, **loud, dtype="float32"))
    assert (result.rows, result.computed) == (24, 24)
    assert max(row.max() for _, _, row in load_all(result).values()) > 65504


def test_float16_features_are_stored_and_read_as_float16(recipe, photos, tmp_path):
    single = load_all(extract(recipe))
    result = extract(tiny_recipe(tmp_path, photos, dtype="float16"))
    assert result.computed == 24
    shards = [h5py.File(path)["features"].dtype for path in recipe.cache.rglob("shards/*.h5")]
    assert sorted(map(str, shards)) == ["float16", "float32"]
    with h5py.File(result.features_file) as file:
        assert {file[split]["features"].dtype for split in ("train", "validation")} == {np.dtype("float16")}
    for path, (_, _, row) in load_all(result).items():
        assert row.dtype == np.float16
        assert np.array_equal(row, single[path][2].astype(np.float16))


def test_what_bf16_gave_serves_a_processor_without_it_and_the_rest_is_refused(recipe, photos, monkeypatch):
    bf16 = recipe.model_copy(update={"base": recipe.base.model_copy(update={"precision": "bf16"})})
    monkeypatch.setattr(processor, "has_bf16", lambda: True)  # OpenVINO itself then takes f32
    assert extract(bf16).computed == 24
    monkeypatch.setattr(processor, "has_bf16", lambda: False)
    again = extract(bf16)
    assert (again.rows, again.computed) == (24, 0)
    make_photo(photos / "cat" / "new.png", seed=55_555)
    with pytest.raises(BaseNetworkError, match="needs a processor with AMX"):
        extract(bf16)


@pytest.mark.parametrize(("error", "precision"), [(0.006, "bf16"), (0.08, "f32")])
def test_auto_chooses_the_precision_on_the_recipes_photos_and_shows_it(
    photos, tmp_path, bf16_error, error, precision
):
    bf16_error(error)
    auto = tiny_recipe(tmp_path, photos, precision="auto")
    told = extract(auto).to_json()
    assert (told["precision"], told["bf16_photos"]) == (precision, 24)
    assert told["bf16_difference"] == pytest.approx(error, rel=1e-3)
    again = extract(auto).to_json()
    assert (again["computed"], again["bf16_difference"]) == (0, told["bf16_difference"])
    shown = facts.of_recipe(auto, SILENT)
    assert (shown["precision"], shown["in_store"]) == (precision, 24)


def test_auto_is_the_same_with_and_without_bf16_for_a_base_that_bf16_changes(
    photos, tmp_path, bf16_error, monkeypatch
):
    monkeypatch.setattr(processor, "has_bf16", lambda: False)
    without = load_all(extract(tiny_recipe(tmp_path, photos, precision="auto")))
    bf16_error(0.08)
    there = extract(tiny_recipe(tmp_path, photos, precision="auto"))
    assert there.computed == 0
    assert same_rows(load_all(there), without)


def test_the_second_engine_computes_nothing_that_the_first_has(recipe, photos, tmp_path):
    f32 = {"precision": "f32"}
    assert extract(tiny_recipe(tmp_path, photos, **f32, engine="openvino")).computed == 24
    assert extract(tiny_recipe(tmp_path, photos, **f32, engine="tensorflow")).computed == 0


def test_the_profile_tells_where_the_time_went(recipe):
    profile = extract(recipe).profile
    spent = profile.reading + profile.decoding + profile.inference + profile.waiting
    assert profile.workers >= 1
    assert profile.preparing > 0
    assert min(profile.reading, profile.decoding, profile.inference, profile.writing) > 0
    assert spent == pytest.approx(profile.computing * profile.workers)
    nothing = extract(recipe).profile
    assert nothing.decoding == nothing.inference == 0


@contextlib.contextmanager
def mounted(folder: Path, tiny_store: Path, kilobytes: int):
    """Mount a disk with this much room beside what the tiny base needs."""
    folder.mkdir()
    taken = sum(path.stat().st_size // 1024 + 4 for path in tiny_store.rglob("*"))
    options = f"size={taken + kilobytes}k"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True)
    if done.returncode:
        pytest.skip("mounting a file system needs root")
    try:
        shutil.copytree(tiny_store, folder, dirs_exist_ok=True)
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_too_small_is_refused_before_work_begins(recipe, tmp_path, tiny_store):
    with mounted(tmp_path / "small", tiny_store, 900) as small:
        little = recipe.model_copy(update={"cache": small})
        with pytest.raises(StoreError, match=r"24 rows need .* free"):
            extract(little)
        assert not list(small.rglob("*.h5"))


def test_a_disk_that_fills_up_meanwhile_leaves_a_valid_store(recipe, tmp_path, tiny_store, monkeypatch):
    monkeypatch.setattr(extraction, "_SHARD_ROWS", 8)
    monkeypatch.setattr("featcache.store.base_store.Store.free_bytes", lambda self: 10**12)
    rows = load_all(extract(recipe))
    with mounted(tmp_path / "small", tiny_store, 100) as small:
        little = recipe.model_copy(update={"cache": small})
        with pytest.raises(StoreError, match="disk is full"):
            extract(little)
        assert not list(small.rglob("*.aside"))
        survived = len(list(small.rglob("shards/*.h5")))
        assert survived >= 1
        subprocess.run(["mount", "-o", "remount,size=8m", small], check=True)
        again = extract(little)
        assert again.computed == 24 - 8 * survived
        assert same_rows(load_all(again), rows)


def test_a_read_only_cache_serves_what_it_has_and_says_so_for_the_rest(recipe, photos, tmp_path, tiny_store):
    with mounted(tmp_path / "store", tiny_store, 20_000) as store:
        there = recipe.model_copy(update={"cache": store})
        extract(there)
        subprocess.run(["mount", "-o", "remount,ro", store], check=True)
        assert extract(there).computed == 0
        make_photo(photos / "cat" / "new.png", seed=55_555)
        with pytest.raises(StoreError, match=r"cannot be written.*--cache"):
            extract(there)


# What is killed is a real process that runs the real command, only with small shards, so that many are
# published in its short life.
CHILD = (
    "import sys, featcache.extraction.compute as e; e._SHARD_ROWS = 16; "
    "from featcache.cli import main; sys.exit(main(sys.argv[1:]))"
)


def start_child(recipe: Recipe, recipe_file: Path) -> subprocess.Popen[str]:
    given = ["--cache", recipe.cache, "--run", recipe.run, "--engine", recipe.base.engine]
    command = [sys.executable, "-c", CHILD, "features", recipe_file, *given]
    return subprocess.Popen(
        list(map(str, command)), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )


def wait_for_work(child: subprocess.Popen[str]) -> None:
    assert child.stderr
    for line in child.stderr:
        if "to compute" in line:
            return
    raise AssertionError("the child ended before it began to compute")


def wait_for_shards(child: subprocess.Popen[str], cache: Path, count: int) -> None:
    while child.poll() is None and len(list(cache.rglob("shards/*.h5"))) < count:
        time.sleep(0.002)


def rows_of(cache: Path) -> int:
    return sum(len(h5py.File(path)["view"]) for path in cache.rglob("shards/*.h5"))


@pytest.fixture(scope="module")
def many_photos(tmp_path_factory) -> Path:
    """Enough photos for dozens of shards, with a few broken ones among them."""
    folder = tmp_path_factory.mktemp("many")
    for index, name in enumerate(("cat", "dog")):
        for number in range(200):
            make_photo(folder / "photos" / name / f"{number:03}.jpg", 1000 * index + number, (500, 375))
        (folder / "photos" / name / "050-broken.jpg").write_bytes(b"\xff\xd8\xff broken" + name.encode())
    toml = folder / "recipe.toml"
    toml.write_text(
        f'[data]\nroot = "{folder / "photos"}"\n[base]\nname = "MobileNetV2"\narguments = {{alpha = 0.35}}\n'
        'weights = "random"\nimage_size = 32\nbatch_size = 8\n'
    )
    return toml


@pytest.mark.parametrize("engine", ["openvino", pytest.param("tensorflow", marks=pytest.mark.slow)])
def test_killed_at_any_moment_the_next_run_finishes_and_gives_the_same_bits(
    many_photos, tmp_path, monkeypatch, engine, record_property
):
    def recipe_in(folder: Path) -> Recipe:
        places = {"cache": str(folder / "cache"), "run": str(folder / "run")}
        return Recipe.load(many_photos, {**places, "base.engine": engine})

    warm, reference = recipe_in(tmp_path / "warm"), recipe_in(tmp_path / "reference")
    # a child that finds the converted network needs no TensorFlow, and is at work in a second or two
    Base(warm.base, Store(warm.cache)).prepare()
    shutil.copytree(warm.cache, reference.cache)
    child = start_child(reference, many_photos)
    wait_for_work(child)
    assert child.wait(120) == 0
    rows = load_all(extract(reference))
    assert len(rows) == 400
    monkeypatch.setattr(extraction, "_SHARD_ROWS", 16)
    chance, survivors = random.Random(20), []
    for trial in range(20):
        recipe = recipe_in(tmp_path / f"{trial}")
        shutil.copytree(warm.cache, recipe.cache)
        child = start_child(recipe, many_photos)
        wait_for_work(child)
        wait_for_shards(child, recipe.cache, chance.randrange(25))
        time.sleep(chance.uniform(0, 0.05))
        child.send_signal(signal.SIGKILL)
        child.wait()
        survivors.append(rows_of(recipe.cache))
        result = extract(recipe)
        assert result.computed == 400 - survivors[-1]
        assert same_rows(load_all(result), rows)
        assert not list(recipe.cache.rglob("*.aside"))
    record_property("survivors", sorted(survivors))
    partial = {survived for survived in survivors if 0 < survived < 400}
    assert len(partial) >= 5, f"too few kills hit the extraction itself: {survivors}"


def test_two_runs_at_once_on_one_cache_do_not_hurt_each_other(many_photos, tmp_path):
    places = [{"cache": str(tmp_path / "c"), "run": str(tmp_path / f"r{n}")} for n in range(2)]
    recipes = [Recipe.load(many_photos, place) for place in places]
    children = [start_child(recipe, many_photos) for recipe in recipes]
    for child in children:
        child.communicate(timeout=240)
        assert child.returncode == 0
    results = [extract(recipe) for recipe in recipes]
    assert [result.computed for result in results] == [0, 0]
    assert same_rows(*[load_all(result) for result in results])


def test_memory_does_not_grow_with_the_number_of_photos_per_shard():
    # the writer holds one shard at most, whatever a row's size
    for row_bytes in (4 * 512, 4 * 8192, 4 * 7 * 7 * 2048, 10**9):
        rows = extraction._rows_per_shard(row_bytes, 32)
        assert rows % 32 == 0
        assert rows * row_bytes <= max(extraction._SHARD_BYTES, 32 * row_bytes)


def test_the_extraction_of_a_folder_needs_no_recipe(tmp_path):
    folder = make_photos(tmp_path / "p")
    recipe = Recipe.load(folder)
    assert recipe.base.name == "MobileNetV2"
    assert recipe.base.image_size == (160, 160)
    assert recipe.base.weights == "imagenet"
    assert [head.name for head in recipe.heads][:3] == ["LogisticRegression", "linear", "dense-256"]
