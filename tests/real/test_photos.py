"""The whole way on real photos with real weights: what is found, reused, noticed and refused."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import run_cli

from featcache.cli import main
from featcache.extraction.stage import extract
from featcache.model import Model
from featcache.recipe import Recipe
from featcache.store.feature_file import Features

pytestmark = pytest.mark.real

# Of catanddog; both names and content are as they were published.
BMP_NAMED_JPG = {
    "test/Dog/8126.jpg",
    "train/Dog/1017.jpg",
    "train/Dog/50.jpg",
    "train/Cat/23.jpg",
    "train/Cat/7647.jpg",
    "train/Cat/7642.jpg",
}


@pytest.fixture(scope="module")
def weights(shared):
    return shared / "weights" / "mobilenet_v2_1.0_224_notop.weights.h5"


@pytest.fixture(scope="module")
def catanddog(shared, weights, tmp_path_factory):
    """Features and default heads of catanddog's 483 photos, made by one real command."""
    folder = tmp_path_factory.mktemp("catanddog")
    recipe = folder / "recipe.toml"
    recipe.write_text(
        f"run = '{folder / 'run'}'\ncache = '{folder / 'cache'}'\n"
        f"[data]\nroot = '{shared / 'data' / 'catanddog'}'\n"
        f"[base]\nname = 'MobileNetV2'\nweights = '{weights}'\nimage_size = 160\n"
    )
    done = run_cli("heads", recipe, "--json")
    assert done.returncode == 0, done.stderr
    return recipe, json.loads(done.stdout)


def test_all_photos_of_catanddog_are_used_and_the_linear_head_is_good(catanddog):
    _, result = catanddog
    assert (result["features"]["rows"], result["features"]["computed"]) == (483, 483)
    assert result["features"]["skipped"] == []
    (best,) = [head for head in result["heads"] if head["name"] == result["best"]]
    assert best["test"]["n"] == 98
    # which head is best hangs on one of 74 photos: a named one is asked for its accuracy
    linear = Model.load(Path(result["run"]) / "models" / "LogisticRegression").head
    with Features(Path(result["features"]["features_file"])) as features:
        X, y = features["test"].load()
    assert np.mean(linear.predict(X) == y) >= 0.95
    assert best["test"]["accuracy_low"] < best["test"]["accuracy"] < best["test"]["accuracy_high"] <= 1


def test_bitmaps_named_jpg_are_among_the_rows(catanddog, shared):
    recipe, _ = catanddog
    data = shared / "data" / "catanddog"
    assert all((data / name).read_bytes()[:2] == b"BM" for name in BMP_NAMED_JPG)
    again = extract(Recipe.load(recipe))
    assert again.computed == 0
    with again.open() as features:
        paths = {Path(path) for split in features.splits for path in features[split].paths}
    assert {data / name for name in BMP_NAMED_JPG} <= paths


def test_the_second_command_computes_nothing_without_tensorflow(catanddog, tmp_path):
    driver = (
        "import sys; from featcache.cli import main; status = main(sys.argv[1:]); "
        "assert 'tensorflow' not in sys.modules; sys.exit(status)"
    )
    command = [sys.executable, "-c", driver, "features", catanddog[0], "--run", tmp_path / "run", "--json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["rows"], result["computed"], result["reused"]) == (483, 0, 483)


def test_the_saved_best_model_knows_photos_of_another_collection(catanddog, shared):
    model = Model.load(catanddog[1]["run"])
    photos = {
        kind: sorted((shared / "data" / "cats_dogs" / "validation" / kind).iterdir())[:20]
        for kind in ("cats", "dogs")
    }
    right = [
        one.label.lower() + "s" == Path(one.path).parent.name
        for one in model.predict([*photos["cats"], *photos["dogs"]])
    ]
    assert len(right) == 40
    assert sum(right) >= 36


def test_weights_that_do_not_fit_are_refused_and_harm_nothing(catanddog, capsys):
    recipe, result = catanddog
    before = Path(result["features"]["features_file"]).read_bytes()
    assert main(["features", str(recipe), "--set", "base.arguments={alpha=1.4}", "--overwrite"]) == 1
    printed = capsys.readouterr().err
    assert "mobilenet_v2_1.0_224_notop.weights.h5 do not fit MobileNetV2 with {'alpha': 1.4}" in printed
    assert Path(result["features"]["features_file"]).read_bytes() == before


@pytest.fixture
def few(shared, weights, tmp_path):
    """60 cats and 60 dogs of cats_dogs in a folder of their own, and a recipe for them."""
    for kind in ("cats", "dogs"):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for photo in sorted((shared / "data" / "cats_dogs" / "train" / kind).iterdir())[:60]:
            shutil.copy(photo, tmp_path / "photos" / kind)
    return Recipe.parse(
        {
            "data": {"root": str(tmp_path / "photos")},
            "base": {"weights": str(weights), "image_size": 96},
            "cache": str(tmp_path / "cache"),
            "run": str(tmp_path / "run"),
        }
    )


def by_digest(extraction):
    """Return label and features of every row, by what identifies it."""
    with extraction.open() as features:
        return {
            bytes(digest): (features.classes[label], row)
            for split in features.splits
            for digest, label, row in zip(
                features[split].digests, features[split].labels, features[split].load()[0], strict=True
            )
        }


def test_relabelling_computes_nothing_and_a_replaced_photo_is_noticed(few, shared):
    first = extract(few)
    assert (first.rows, first.computed, first.skipped) == (120, 120, ())
    before = by_digest(first)

    photos = few.data.root
    (photos / "cats").rename(photos / "aside")
    (photos / "dogs").rename(photos / "cats")
    (photos / "aside").rename(photos / "dogs")
    swapped = extract(few)
    assert (swapped.rows, swapped.computed) == (120, 0)
    after = by_digest(swapped)
    assert after.keys() == before.keys()
    for digest, (label, row) in before.items():
        assert after[digest][0] == {"cats": "dogs", "dogs": "cats"}[label]
        assert (after[digest][1] == row).all()

    victim = sorted((photos / "cats").iterdir())[7]
    other = sorted((shared / "data" / "cats_dogs" / "train" / "cats").iterdir())[90]
    shutil.copyfile(other, victim)
    replaced = extract(few)
    assert (replaced.rows, replaced.computed) == (120, 1)
    assert len(by_digest(replaced).keys() - before.keys()) == 1
