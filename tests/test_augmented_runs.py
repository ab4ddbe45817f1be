"""Augmentation through the stages: computed once, learned from, and never scored on."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import make_photo, make_photos, run_cli, tiny_recipe

from featcache.bases.base import Base
from featcache.errors import StoreError
from featcache.extraction.stage import extract
from featcache.images.decode import Decoding, decode_views
from featcache.images.views import views_of
from featcache.model import Model
from featcache.recipe import AugmentSettings, Recipe
from featcache.store.base_store import Store
from featcache.training import train_heads

AUGMENT = {"views": 3, "flip": True, "rotation": 0.1, "crop": (0.5, 0.9)}


def augmented(recipe: Recipe, **change: object) -> Recipe:
    return recipe.model_copy(update={"augment": AugmentSettings(**AUGMENT | change)})


def numbers_of(result):
    return result.photos, result.rows, result.computed, result.reused


@pytest.fixture
def train_photos(recipe) -> int:
    with extract(recipe).open() as features:
        return len(features["train"])


def test_each_view_is_computed_once(recipe, photos, tmp_path, train_photos):
    """The plain photos are there already, from the recipe without augmentation."""
    rows = 24 + 2 * train_photos
    assert numbers_of(extract(augmented(recipe))) == (24, rows, 2 * train_photos, 24)
    assert numbers_of(extract(augmented(recipe))) == (24, rows, 0, rows)
    more = extract(augmented(recipe, views=5))
    assert numbers_of(more) == (24, rows + 2 * train_photos, 2 * train_photos, rows)
    assert numbers_of(extract(augmented(recipe, views=2))) == (24, 24 + train_photos, 0, 24 + train_photos)
    assert extract(augmented(recipe, rotation=0.2)).computed == 2 * train_photos
    assert numbers_of(extract(recipe)) == (24, 24, 0, 24)
    (photos / "cat" / "000.png").rename(photos / "cat" / "renamed.png")
    assert extract(augmented(recipe, views=5)).computed == 0


def test_rows_are_those_of_the_photos_views(recipe):
    recipe = augmented(recipe)
    result = extract(recipe)
    base = Base(recipe.base, Store(recipe.cache))
    with result.open() as features:
        train = features["train"]
        X, _ = train.load_views()
        assert train.augment == json.loads(recipe.augment.model_dump_json())
        for place in (0, len(train) - 1):
            data, digest = Path(train.paths[place]).read_bytes(), bytes(train.digests[place])
            pixels = decode_views(
                data, digest, views_of(recipe.augment), Decoding(recipe.base.image_size)
            ).pixels
            assert np.array_equal(X[3 * place : 3 * place + 3], base.features(np.stack(pixels)))
        assert np.array_equal(train.load()[0], X[::3])
        assert features["validation"].views == 1


def test_what_a_recipe_would_compute_counts_views(recipe, train_photos, tmp_path):
    options = ["--cache", recipe.cache, "--set", "base.arguments={alpha=0.35}", "--weights", "random"]
    options += ["--image-size", 32, "--set", "augment.flip=true", "--set", "augment.views=4"]
    found = json.loads(run_cli("info", recipe.data.root, *options, "--json").stdout)
    assert (found["views"], found["in_store"], found["to_compute"]) == (4, 24, 3 * train_photos)
    found = json.loads(
        run_cli("info", recipe.data.root, *options, "--cache", tmp_path / "none", "--json").stdout
    )
    assert found["to_compute"] == 24 + 3 * train_photos


def test_more_views_than_the_disk_has_room_for_are_refused_with_a_way_out(recipe, monkeypatch):
    monkeypatch.setattr("featcache.store.base_store.Store.free_bytes", lambda self: 1_400_000)
    with pytest.raises(StoreError, match=r"augmented views\) need .* take fewer augment\.views"):
        extract(augmented(recipe, views=100))
    assert extract(recipe).computed == 24


def test_a_photo_that_cannot_be_decoded_is_skipped_once(recipe, photos):
    (photos / "cat" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    result = extract(augmented(recipe))
    assert [Path(path).name for path, _ in result.skipped] == ["broken.jpg"]
    assert result.photos == 24


# ---- killed ----------------------------------------------------------------------------------------------

CHILD = (
    "import sys; from pathlib import Path; import featcache as fc; import featcache.extraction.compute as e; "
    "e._SHARD_ROWS = 16; fc.extract(fc.Recipe.model_validate_json(Path(sys.argv[1]).read_text()))"
)


def all_rows(result):
    with result.open() as features:
        return features["train"].load_views()[0], features["validation"].load()[0]


def test_killed_while_it_computes_views_the_next_run_gives_the_same_bits(tmp_path, tiny_store):
    for index, name in enumerate(("cat", "dog")):
        for number in range(50):
            make_photo(tmp_path / "photos" / name / f"{number:03}.jpg", 100 * index + number, (500, 375))

    def recipe_in(place: str) -> Recipe:
        shutil.copytree(tiny_store, tmp_path / place / "cache")
        return augmented(tiny_recipe(tmp_path / place, tmp_path / "photos"), views=5)

    reference = all_rows(extract(recipe_in("whole")))
    survivors = []
    for shards in (1, 6):
        recipe = recipe_in(str(shards))
        written = tmp_path / "recipe.json"
        written.write_text(recipe.model_dump_json())
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, written], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while child.poll() is None and len(list(recipe.cache.rglob("shards/*.h5"))) < shards:
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        child.wait()
        survivors.append(sum(len(h5py.File(path)["view"]) for path in recipe.cache.rglob("shards/*.h5")))
        result = extract(recipe)
        assert result.computed == result.rows - survivors[-1]
        for one, other in zip(all_rows(result), reference, strict=True):
            assert np.array_equal(one, other)
    assert any(16 <= survived < len(reference[0]) for survived in survivors), survivors


# ---- heads -----------------------------------------------------------------------------------------------

NEIGHBOURS = {"type": "KNeighborsClassifier", "n_neighbors": 1}
LINEAR = {"type": "dense", "epochs": 3}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("augmented")
    make_photos(place / "photos", per_class=15)
    return place


def recipe_with(place, *heads, **more):
    data = more.pop("data", {"root": str(place / "photos")})
    return Recipe.parse(
        tiny_recipe(place, place / "photos").model_dump(mode="json", exclude_none=True, exclude={"sweep"})
        | {"data": data, "heads": list(heads), "augment": AUGMENT}
        | more
    )


def test_heads_learn_from_views_and_are_scored_on_photos(place):
    training = train_heads(recipe_with(place, NEIGHBOURS, LINEAR))
    with training.extraction.open() as features:
        train, validation = features["train"], features["validation"]
        neighbours = Model.load(training["KNeighborsClassifier"].model).head
        assert neighbours[-1].n_samples_fit_ == 3 * len(train), "every view is a row of its own"
        X, y = train.load_views()
        assert neighbours.score(X, y) == 1.0
        assert {head.validation["n"] for head in training.heads} == {len(validation)}
    dense = Model.load(training["linear"].model).head
    assert len(dense.history_["loss"]) == 3
    plain = train_heads(recipe_with(place, LINEAR, augment=None, run=str(place / "plain")))
    other = Model.load(plain["linear"].model).head
    assert not np.array_equal(dense.coefs_[0], other.coefs_[0])


def test_heads_of_other_views_are_not_compared(place):
    run = {"run": str(place / "compared")}
    train_heads(recipe_with(place, NEIGHBOURS, **run))
    train_heads(recipe_with(place, {"type": "GaussianNB"}, **run))
    heads = json.loads((place / "compared" / "heads.json").read_text())["heads"]
    assert [head["name"] for head in heads] == ["KNeighborsClassifier", "GaussianNB"]
    train_heads(recipe_with(place, {"type": "GaussianNB"}, augment=AUGMENT | {"views": 2}, **run))
    heads = json.loads((place / "compared" / "heads.json").read_text())["heads"]
    assert [head["name"] for head in heads] == ["GaussianNB"]


def test_with_folds_all_photos_have_views_and_none_of_a_photo_part(place):
    """A nearest neighbour would know a photo at once from another of its views."""
    noise = {"manifest": str(place / "noise.csv"), "folds": 3}
    lines = [f"{path},{'ab'[int(path.stem) % 2]}" for path in sorted((place / "photos").rglob("*.png"))]
    (place / "noise.csv").write_text("path,label\n" + "\n".join(lines) + "\n")
    made = {"data": noise, "run": str(place / "folds"), "augment": {"views": 3, "contrast": 0.01}}
    training = train_heads(recipe_with(place, NEIGHBOURS, **made))
    scores = training["KNeighborsClassifier"].validation
    assert scores["n"] == 30
    assert training.extraction.rows == 90
    assert scores["accuracy"] < 0.9
