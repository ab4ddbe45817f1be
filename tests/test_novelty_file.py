"""What a model keeps of novelty: the same after saving, and refused where it is damaged."""

import hashlib
import io
import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from test_model_files import OLD, SETTINGS, SPEC, X, Y

from featcache.errors import FormatError, ModelError
from featcache.evaluation.conformal import ConformalSets
from featcache.evaluation.novelty import Novelty
from featcache.model import Model
from featcache.model_files import with_hash
from featcache.novelty_file import NOVELTY_FILE, novelty_bytes, read_novelty
from featcache.run.layout import MODEL_FILE


@pytest.fixture(scope="module")
def head():
    return LogisticRegression().fit(X, Y)


@pytest.fixture
def model(head):
    conformal = ConformalSets.of(head.predict_proba(X), Y)
    return Model(
        "one", ("cat", "dog"), SETTINGS, SPEC, head, {}, novelty=Novelty.fit(X, Y), conformal=conformal
    )


@pytest.fixture
def folder(model, tmp_path):
    model.save(tmp_path / "model")
    return tmp_path / "model"


def replace_arrays(folder, **changes):
    """Change ``novelty.npz`` and enter its hash, as somebody who means harm would."""
    path = folder / NOVELTY_FILE
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files} | changes
    data = io.BytesIO()
    np.savez(data, **{name: array for name, array in arrays.items() if array is not None})
    write(folder, data.getvalue())


def write(folder, data):
    (folder / NOVELTY_FILE).write_bytes(data)
    facts = json.loads((folder / MODEL_FILE).read_text())
    facts["files"][NOVELTY_FILE] = hashlib.sha256(data).hexdigest()
    (folder / MODEL_FILE).write_text(json.dumps(with_hash(facts)))


def test_a_loaded_model_answers_as_the_one_that_was_saved(model, folder):
    asked = {"reject": 0.3, "set_size": 0.2}
    loaded, saved = (one.predict_features(X, **asked) for one in (Model.load(folder), model))
    for name in ("label", "novelty", "rejected", "set"):
        assert [getattr(one, name) for one in loaded] == [getattr(one, name) for one in saved]
    assert {one.rejected for one in loaded} == {True, False}


def test_saved_again_it_still_has_novelty(folder, tmp_path):
    Model.load(folder).save(tmp_path / "again")
    assert (tmp_path / "again" / NOVELTY_FILE).read_bytes() == (folder / NOVELTY_FILE).read_bytes()


def test_it_stays_small():
    rng = np.random.default_rng(0)
    novelty = Novelty.fit(rng.normal(size=(400, 1280)).astype(np.float32), np.repeat([0, 1], 200))
    assert len(novelty_bytes(novelty, None)) < 400_000


def test_models_of_version_0_1_predict_without_novelty_and_say_what_to_do_about_it():
    model = Model.load(OLD / "linear")
    with np.load(OLD / "expected.npz") as expected:
        features = expected["X"]
    assert {one.novelty for one in model.predict_features(features)} == {None}
    for asked in ({"reject": 0.05}, {"set_size": 0.1}):
        with pytest.raises(ModelError, match=r"earlier version of featcache.*train"):
            model.predict_features(features, **asked)


@pytest.mark.parametrize(
    "changes",
    [
        {"means": None},
        {"format": None},
        {"means": np.zeros((2, 9), np.float32)},
        {"labels": np.array([0, 5])},
        {"scores": np.array([])},
        {"nearest": np.array([object()])},
        {"conformal": np.float32([2.0])},
    ],
    ids=["missing", "no format", "channels", "classes", "empty", "objects", "conformal"],
)
def test_arrays_that_are_not_of_this_model_are_one_line(folder, changes):
    replace_arrays(folder, **changes)
    with pytest.raises((ModelError, FormatError), match=r"novelty\.npz") as error:
        Model.load(folder)
    assert "\n" not in str(error.value)


def test_a_newer_format_is_refused_as_one(folder):
    replace_arrays(folder, format=np.array(99))
    with pytest.raises(FormatError, match="upgrade featcache"):
        Model.load(folder)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"no archive" * 100])
def test_what_is_no_archive_is_one_line(folder, data):
    write(folder, data)
    with pytest.raises(ModelError, match=r"novelty\.npz is damaged"):
        Model.load(folder)


def test_a_head_without_probabilities_has_novelty_only(tmp_path):
    data = novelty_bytes(Novelty.fit(X, Y), None)
    novelty, conformal = read_novelty(data, tmp_path / NOVELTY_FILE, 2, X.shape[1], "train the head again")
    assert conformal is None
    assert novelty.p_values(X).shape == (60,)
