"""A trained model as its users see it: saved, loaded, asked about photos, and refused where it must be."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import make_photos
from PIL import Image

from featcache.bases.base import Base
from featcache.errors import DataError, FeatcacheError, FormatError, ModelError, StoreError, WeightsError
from featcache.extraction.stage import extract
from featcache.images.decode import decode
from featcache.model import MODEL_FILE, Model
from featcache.model_files import with_hash
from featcache.recipe import Recipe, default_cache
from featcache.runtime import keras
from featcache.training import train_heads


def write_base(path, seed):
    """Save a network of one layer, as the smallest base there can be."""
    initial = keras().initializers.RandomNormal(stddev=1.0, seed=seed)
    layers = [
        keras().Input((32, 32, 3)),
        keras().layers.Rescaling(1 / 255),
        keras().layers.Conv2D(8, 4, strides=4, activation="relu", kernel_initializer=initial, name="conv"),
    ]
    keras().Sequential(layers).save(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run with a model of each kind, and the photos that they know: all dogs are darker than all cats."""
    place = tmp_path_factory.mktemp("model")
    make_photos(place / "photos", per_class=20, classes=("cat",))
    for number in range(20):
        dark = np.random.default_rng(number).integers(0, 60, (32, 40, 3), np.uint8)
        write_png(place / "photos" / "dog" / f"{number:03}.png", dark)
    write_base(place / "tiny.keras", seed=1)
    recipe = Recipe.parse(
        {
            "data": {"root": str(place / "photos")},
            "base": {"name": str(place / "tiny.keras"), "image_size": 32, "batch_size": 8},
            "heads": [
                {"type": "DummyClassifier"},
                {"type": "LogisticRegression"},
                {"type": "LinearSVC"},
                {"type": "dense", "epochs": 20, "learning_rate": 0.1},
            ],
            "cache": str(place / "cache"),
            "run": str(place / "run"),
        }
    )
    assert train_heads(recipe).best == "LogisticRegression"
    return place


def write_png(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(place, tmp_path):
    """A copy of the best model that a test may spoil."""
    return shutil.copytree(place / "run" / "models" / "LogisticRegression", tmp_path / "copy")


def spoil(folder, **changes):
    """Change what ``model.json`` says."""
    facts = json.loads((folder / MODEL_FILE).read_text())
    (folder / MODEL_FILE).write_text(json.dumps(with_hash(facts | changes)))


# ---- asking about photos ---------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["LogisticRegression", "linear"])
def test_photos_are_classified_by_the_saved_model_as_by_the_trained_one(place, head):
    model = Model.load(place / "run" / "models" / head)
    photos = [place / "photos" / "dog" / "001.png", place / "photos" / "cat" / "001.png"]
    predictions = list(model.predict(photos))
    assert [one.path for one in predictions] == list(map(str, photos))
    assert [one.label for one in predictions] == ["dog", "cat"]
    for one in predictions:
        assert set(one.probabilities) == {"cat", "dog"}
        assert sum(one.probabilities.values()) == pytest.approx(1.0)
        assert one.probability == max(one.probabilities.values()) == one.probabilities[one.label]
        assert one.reason is None


def test_predictions_are_those_on_the_stored_features(place):
    model = Model.load(place / "run")
    predictions = {one.path: one for one in model.predict([place / "photos"])}
    recipe = Recipe.parse(
        {
            "data": {"root": str(place / "photos")},
            "base": model.settings.model_dump(),
            "cache": str(place / "cache"),
            "run": str(place / "again"),
        }
    )
    stored = extract(recipe)
    assert stored.computed == 0
    with stored.open() as features:
        for split in features.splits:
            expected = model.predict_features(features[split].load()[0])
            for path, one in zip(features[split].paths, expected, strict=True):
                assert predictions[path].label == one.label
                assert predictions[path].probability == pytest.approx(one.probability, abs=1e-6)


def test_a_run_stands_for_its_best_model(place):
    assert Model.load(place / "run").name == "LogisticRegression"


def test_folders_stand_for_the_photos_in_them_in_order(place):
    model = Model.load(place / "run")
    single = place / "photos" / "dog" / "005.png"
    predictions = list(model.predict([single, place / "photos"]))
    paths = [one.path for one in predictions]
    assert paths == [str(single), *sorted(map(str, (place / "photos").rglob("*.png")))]
    right = [one.label == Path(path).parent.name for one, path in zip(predictions, paths, strict=True)]
    assert np.mean(right) > 0.9


def test_more_photos_than_a_batch_holds_keep_their_order(place, tmp_path):
    names = [f"{number:02}.png" for number in np.random.default_rng(0).permutation(21)]
    for name in names:
        kind = "dog" if int(name[:2]) % 3 else "cat"
        shutil.copy(place / "photos" / kind / "001.png", tmp_path / name)
    predictions = list(Model.load(place / "run").predict([tmp_path / name for name in names]))
    assert [one.label for one in predictions] == ["dog" if int(name[:2]) % 3 else "cat" for name in names]


def test_a_broken_photo_gets_a_reason_and_the_others_their_class(place, tmp_path):
    broken, gone = tmp_path / "broken.jpg", tmp_path / "empty.png"
    broken.write_bytes(b"\xff\xd8\xff broken")
    gone.touch()
    good = place / "photos" / "dog" / "001.png"
    by_path = {one.path: one for one in Model.load(place / "run").predict([broken, good, gone])}
    assert by_path[str(good)].label == "dog"
    for path in (broken, gone):
        one = by_path[str(path)]
        assert (one.label, one.probability, one.probabilities) == (None, None, None)
        assert one.reason
    assert "empty" in by_path[str(gone)].reason


def test_there_is_one_result_per_photo_in_the_order_of_the_photos(place, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff broken")
    asked = [broken, *sorted((place / "photos" / "dog").iterdir())[:9], broken]
    predictions = list(Model.load(place / "run").predict(asked))
    assert [one.path for one in predictions] == list(map(str, asked))
    assert [one.label for one in predictions] == [None, *9 * ["dog"], None]


@pytest.mark.parametrize(
    ("name", "reason"), [("x" * 5000, "too long"), ("a\0b", "null")], ids=["long", "NUL"]
)
def test_a_path_that_cannot_be_looked_up_is_a_failed_photo_and_the_others_get_their_class(
    place, name, reason
):
    good = str(next((place / "photos" / "dog").iterdir()))
    first, second = Model.load(place / "run").predict([name, good])
    assert first.label is None
    assert reason in first.reason
    assert (second.path, second.label is not None) == (good, True)


CLOSED = """
import os, sys
from featcache.errors import ImageError
from featcache.images.source import read_photo
from featcache.inputs import expand
if os.geteuid() == 0:
    os.setuid(65534)  # root may enter every folder
try:
    read_photo(*expand([sys.argv[1]]))
except ImageError as error:
    print(error)
"""


@pytest.mark.skipif(os.name == "nt", reason="folders are closed in another way")
def test_a_photo_in_a_folder_that_may_not_be_entered_is_a_failed_photo():
    with tempfile.TemporaryDirectory() as name:  # pytest's own folder is closed to other users
        folder = Path(name) / "closed"
        folder.mkdir()
        (folder / "photo.jpg").touch()
        Path(name).chmod(0o755)
        folder.chmod(0)
        command = [sys.executable, "-c", CLOSED, str(folder / "photo.jpg")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        folder.chmod(0o700)
    assert done.stdout == "cannot be read: permission denied\n", done.stderr


def test_a_path_that_does_not_exist_and_an_empty_folder_are_refused(place, tmp_path):
    model = Model.load(place / "run")
    with pytest.raises(DataError, match=r"nothing\.jpg does not exist"):
        list(model.predict([tmp_path / "nothing.jpg"]))
    with pytest.raises(DataError, match="holds no file"):
        list(model.predict([tmp_path]))


# ---- asking about pixels ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pixels(place):
    """The photos of the set as the model's decoder gives them, their paths, and more than two batches."""
    paths = sorted((place / "photos").rglob("*.png"))[::2]
    decoded = [decode(path.read_bytes(), (32, 32)) for path in paths]
    assert len(paths) == 20
    return np.stack(decoded), paths


@pytest.mark.parametrize("head", ["LogisticRegression", "LinearSVC", "linear"])
def test_pixels_are_classified_as_the_photos_that_they_come_from(place, pixels, head):
    model = Model.load(place / "run" / "models" / head)
    from_files = list(model.predict(pixels[1]))
    from_pixels = list(model.predict(pixels[0]))
    assert {one.path for one in from_pixels} == {""}
    assert [replace(one, path="") for one in from_files] == from_pixels
    assert list(model.predict(pixels[0][:0])) == []


def test_a_single_photo_is_one_row(place, pixels):
    model = Model.load(place / "run")
    (one,) = model.predict(pixels[0][3])
    (other,) = model.predict(pixels[0][3:4])
    assert one == other
    assert one.label == Path(pixels[1][3]).parent.name


def test_of_pixels_on_disk_a_batch_is_read_at_a_time(place, pixels, tmp_path):
    read = []

    class Watched:
        """Looks like an array and notes what is read of it."""

        shape, dtype = pixels[0].shape, pixels[0].dtype

        def __len__(self):
            return len(pixels[0])

        def __getitem__(self, rows):
            read.append(rows)
            return pixels[0][rows]

    model = Model.load(place / "run")
    expected = list(model.predict(pixels[0]))
    assert list(model.predict(Watched())) == expected
    assert sorted((rows.start, rows.stop) for rows in read) == [(0, 8), (8, 16), (16, 24)]
    with h5py.File(tmp_path / "pixels.h5", "w") as file:
        assert list(model.predict(file.create_dataset("pixels", data=pixels[0]))) == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda array: array.astype(np.float32) / 255,
        lambda array: array.astype(np.int64),
        lambda array: array[..., 0],
        lambda array: array.transpose(0, 3, 1, 2),
        lambda array: array[:, :0],
        lambda array: np.array(7),
    ],
    ids=["float", "int64", "stack of grey", "channels first", "no rows", "scalar"],
)
def test_other_arrays_are_refused_with_what_the_model_takes(place, pixels, change):
    wanted = r"uint8 from 0 to 255, of shape \(height, width\).*\(n, height, width, channels\) for n photos"
    given = change(pixels[0])
    with pytest.raises(DataError, match=wanted) as refused:
        list(Model.load(place / "run").predict(given))
    assert f"shape {given.shape} and dtype {given.dtype} " in str(refused.value)
    assert ("(255 * array)" in str(refused.value)) == (given.dtype.kind == "f")


def test_paths_come_alone_in_a_list_or_in_an_array(place, pixels):
    model = Model.load(place / "run")
    paths = pixels[1][:3]
    expected = list(model.predict(paths))
    for same in (tuple(map(str, paths)), np.array(list(map(str, paths))), np.array(paths, dtype=object)):
        assert list(model.predict(same)) == expected
    assert list(model.predict(str(paths[0]))) == list(model.predict(paths[0])) == expected[:1]
    assert [one.path for one in model.predict(str(place / "photos" / "dog"))] == sorted(
        map(str, (place / "photos" / "dog").iterdir())
    )


def test_what_is_no_photo_and_no_list_is_refused(place):
    with pytest.raises(DataError, match=r"int is no photo; give paths, folders, bytes"):
        list(Model.load(place / "run").predict(7))


def test_a_prediction_as_json(place, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"broken")
    paths = [place / "photos" / "cat" / "001.png", tmp_path / "broken.jpg"]
    cat, broken = (one.to_json() for one in Model.load(place / "run").predict(paths))
    assert list(cat) == ["path", "label", "probability", "probabilities", "novelty"]
    assert list(broken) == ["path", "label", "probability", "probabilities", "reason"]
    assert json.loads(json.dumps([cat, broken])) == [cat, broken]


def test_a_classifier_without_probabilities_gives_the_class_alone(place):
    model = Model.load(place / "run" / "models" / "LinearSVC")
    (one,) = model.predict([place / "photos" / "dog" / "001.png"])
    assert (one.label, one.probability, one.probabilities) == ("dog", None, None)


def test_a_model_can_be_moved(place, folder, tmp_path):
    moved = folder.rename(tmp_path / "elsewhere")
    (one,) = Model.load(moved).predict([place / "photos" / "dog" / "001.png"])
    assert one.label == "dog"


# ---- what is written -------------------------------------------------------------------------------------


def test_model_json_says_what_the_model_is(place):
    facts = json.loads((place / "run" / "models" / "linear" / MODEL_FILE).read_text())
    assert set(facts) == {
        *("format", "name", "classes", "base", "head", "cache", "scores", "versions", "files", "sha256")
    }
    assert (facts["name"], facts["classes"], facts["head"]) == ("linear", ["cat", "dog"], "head.keras")
    assert facts["base"]["spec"]["image_size"] == [32, 32]
    assert facts["scores"]["validation"]["accuracy"] > 0.5
    assert facts["versions"]["keras"] == keras().__version__


def test_a_saved_model_reads_back_the_same(place, tmp_path):
    model = Model.load(place / "run")
    model.save(tmp_path / "new" / "folder")
    again = Model.load(tmp_path / "new" / "folder")
    for name in ("name", "classes", "settings", "spec", "scores"):
        assert getattr(again, name) == getattr(model, name)


def test_a_base_given_by_a_relative_path_is_found_from_elsewhere(place, tmp_path, monkeypatch):
    model = Model.load(place / "run")
    monkeypatch.chdir(place)
    model.settings = model.settings.model_copy(update={"name": "tiny.keras"})
    model.save(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    assert Model.load("model").settings.name == str(place / "tiny.keras")


def test_a_folder_that_cannot_be_made_is_refused(place, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file"):
        Model.load(place / "run").save(tmp_path / "file" / "model")


# ---- what is refused -------------------------------------------------------------------------------------


@pytest.fixture
def changing_base(place, folder, tmp_path):
    """A model on a base file of its own."""
    shutil.copy(place / "tiny.keras", tmp_path / "own.keras")
    facts = json.loads((folder / MODEL_FILE).read_text())
    facts["base"]["settings"]["name"] = str(tmp_path / "own.keras")
    spoil(folder, base=facts["base"], cache=str(tmp_path / "own-cache"))
    return folder, tmp_path / "own.keras"


def test_a_base_whose_weights_have_changed_is_refused(place, changing_base):
    folder, base = changing_base
    photo = place / "photos" / "dog" / "001.png"
    assert next(iter(Model.load(folder).predict([photo]))).label == "dog"
    write_base(base, seed=2)
    for store in (Model.load(folder).cache, default_cache()):
        shutil.rmtree(store, ignore_errors=True)
    with pytest.raises(
        ModelError, match=r"trained on tiny-[0-9a-f]{16}, but its base is now own-.*--weights FILE"
    ):
        list(Model.load(folder).predict([photo]))


def test_a_base_whose_file_is_gone_is_refused(place, changing_base):
    folder, base = changing_base
    base.unlink()
    with pytest.raises(FeatcacheError, match=r"own\.keras.*no such file"):
        list(Model.load(folder).predict([place / "photos" / "dog" / "001.png"]))


def test_a_base_file_that_has_moved_can_be_given_and_is_kept_in_the_store_that_is_named(
    place, changing_base, tmp_path
):
    folder, base = changing_base
    photo = place / "photos" / "dog" / "001.png"
    expected = list(Model.load(place / "run").predict(photo))
    moved = base.rename(tmp_path / "moved.keras")
    store = tmp_path / "another"
    with pytest.raises(
        ModelError, match=r"own\.keras \(SHA-256 of the values: [0-9a-f]{64}\); give that file"
    ):
        next(Model.load(folder).predict(photo))
    assert list(Model.load(folder, weights=moved, cache=store).predict(photo)) == expected
    assert not default_cache().exists()
    moved.unlink()
    assert list(Model.load(folder, cache=store).predict(photo)) == expected


def test_a_base_file_that_is_given_must_be_that_of_the_training(place, changing_base, tmp_path):
    folder, _ = changing_base
    write_base(tmp_path / "other.keras", seed=3)
    model = Model.load(folder, weights=tmp_path / "other.keras")
    with pytest.raises(ModelError, match=r"SHA-256 of the values: .*, not "):
        next(model.predict(place / "photos" / "dog" / "001.png"))
    with pytest.raises(WeightsError, match="there is no such file"):
        Model.load(folder, weights=tmp_path / "gone.keras")


def test_a_model_needs_no_base_file_while_the_store_keeps_its_network(place, changing_base, monkeypatch):
    folder, base = changing_base
    photo = place / "photos" / "dog" / "001.png"
    before = list(Model.load(folder).predict([photo]))
    base.unlink()
    monkeypatch.setattr("featcache.bases.sources.build_network", None)
    assert list(Model.load(folder).predict([photo])) == before


def test_a_model_of_a_newer_format_is_refused(folder):
    spoil(folder, format=99)
    with pytest.raises(FormatError, match=r"model\.json has format 99.*upgrade featcache"):
        Model.load(folder)


@pytest.mark.parametrize("format_number", [None, "one", [1], {}])
def test_a_format_that_is_no_number_is_refused(folder, format_number):
    spoil(folder, format=format_number)
    with pytest.raises(FeatcacheError, match=r"model\.json"):
        Model.load(folder)


class Bomb:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("name", ["head.pkl", "head.pickle", "head.joblib", "head.skops", "head.keras"])
def test_a_pickle_is_never_loaded_whatever_its_name(folder, tmp_path, name):
    (folder / name).write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    spoil(folder, head=name)
    with pytest.raises(ModelError, match=name):
        Model.load(folder)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", "{}", '{"format": 1}', "\xff"])
def test_a_damaged_model_json_is_refused(folder, text):
    (folder / MODEL_FILE).write_bytes(text.encode("latin-1"))
    with pytest.raises((ModelError, FormatError), match=r"model\.json"):
        Model.load(folder)


@pytest.mark.parametrize("missing", ["name", "classes", "base", "head", "scores"])
def test_a_model_json_that_lacks_something_is_refused(folder, missing):
    facts = json.loads((folder / MODEL_FILE).read_text())
    del facts[missing]
    (folder / MODEL_FILE).write_text(json.dumps(with_hash(facts)))
    with pytest.raises(ModelError, match=missing):
        Model.load(folder)


def test_classes_that_are_not_those_of_the_head_are_refused(place, folder):
    for classes in (["cat"], ["cat", "dog", "owl"], []):
        spoil(folder, classes=classes)
        with pytest.raises(ModelError, match=r"model\.json|classes"):
            list(Model.load(folder).predict([place / "photos" / "dog" / "001.png"]))


def test_a_head_that_is_missing_or_cut_is_refused(folder):
    head = folder / "head.skops"
    head.write_bytes(head.read_bytes()[:200])
    with pytest.raises(ModelError, match=r"head\.skops"):
        Model.load(folder)
    head.unlink()
    with pytest.raises(ModelError, match=r"head\.skops does not exist"):
        Model.load(folder)


def test_what_is_no_model_is_refused_with_what_to_give(place, tmp_path):
    for path in (tmp_path, tmp_path / "nothing", place / "run" / "models"):
        with pytest.raises(ModelError, match=r"is no model; give a folder like"):
            Model.load(path)
    with pytest.raises(ModelError, match=r"is not a packed model.*or a model's folder"):
        Model.load(place / "run" / "features.h5")


def test_a_run_whose_best_model_is_gone_is_refused(place, tmp_path):
    shutil.copy(place / "run" / "heads.json", tmp_path)
    with pytest.raises(ModelError, match="is no model"):
        Model.load(tmp_path)


def test_the_models_base_is_the_one_that_made_the_features(place):
    model = Model.load(place / "run")
    assert Base(model.settings).spec == model.spec
