"""Extraction as a scikit-learn transformer: in pipelines and searches, through the store."""

import os
from pathlib import Path

import numpy as np
import pytest
from conftest import make_photo, make_photos, tiny_recipe
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from featcache import FeatureExtractor
from featcache.bases.base import Base
from featcache.errors import BaseNetworkError, DataError, RecipeError, WeightsError
from featcache.extraction.stage import extract
from featcache.images.decode import decode_views
from featcache.recipe import BaseSettings


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Photos whose features the store has."""
    place = tmp_path_factory.mktemp("transformer")
    make_photos(place / "photos", per_class=12)
    extract(tiny_recipe(place, place / "photos"))
    return place


@pytest.fixture
def labelled(place):
    paths = sorted(map(str, (place / "photos").rglob("*.png")))
    return paths, [Path(path).parent.name for path in paths]


@pytest.fixture
def computed(monkeypatch):
    """List how many photos each call of the network gets."""
    calls, real = [], Base.features

    def watched(base, pixels):
        calls.append(len(pixels))
        return real(base, pixels)

    monkeypatch.setattr(Base, "features", watched)
    return calls


@pytest.fixture
def decodings(monkeypatch):
    """List the photos that are decoded, by the length of their bytes."""
    calls = []

    def watched(data, *settings):
        calls.append(len(data))
        return decode_views(data, *settings)

    monkeypatch.setattr("featcache.featurize.decode_views", watched)
    return calls


def extractor(cache, **more):
    tiny = {"image_size": 32, "weights": "random", "arguments": {"alpha": 0.35}, "batch_size": 8}
    tiny["precision"] = "f32"
    return FeatureExtractor("MobileNetV2", cache=cache, **tiny | more)


# ---- what it gives ---------------------------------------------------------------------------------------


def test_it_gives_the_features_that_extract_gives(place, labelled, computed):
    result = extract(tiny_recipe(place, place / "photos"))
    with result.open() as features:
        stored = {
            path: row
            for split in features.splits
            for path, row in zip(features[split].paths, features[split].load()[0], strict=True)
        }
    X = extractor(place / "cache").transform(labelled[0])
    assert X.shape == (24, 1280)
    assert X.dtype == np.float32
    assert all(np.array_equal(row, stored[path]) for row, path in zip(X, labelled[0], strict=True))
    assert computed == [], "they share the store"


def test_rows_come_in_the_order_of_the_paths_also_when_one_stands_twice(place, labelled):
    paths, ours = labelled[0], extractor(place / "cache")
    X, order = ours.transform(paths), [5, 0, 23, 5]
    assert np.array_equal(ours.transform([paths[at] for at in order]), X[order])


def test_paths_may_be_path_objects_or_a_column_of_an_array(place, labelled):
    ours, paths = extractor(place / "cache"), labelled[0][:4]
    X = ours.transform(paths)
    for same in (list(map(Path, paths)), np.array(paths), np.array(paths)[:, None], tuple(paths)):
        assert np.array_equal(ours.transform(same), X)


def test_no_paths_give_no_rows(place):
    assert extractor(place / "cache").transform([]).shape == (0, 1280)


def test_without_pooling_features_keep_their_shape(tmp_path, labelled):
    X = extractor(tmp_path, pooling="none", layer="block_3_expand_relu").transform(labelled[0][:3])
    assert X.ndim == 4
    assert X.shape[0] == 3


# ---- the network runs once -------------------------------------------------------------------------------


def test_the_first_time_each_photo_goes_through_the_network_once(tmp_path, labelled, computed):
    ours = extractor(tmp_path / "fresh")
    X = ours.fit_transform(labelled[0])
    assert sum(computed) == 24
    assert np.array_equal(ours.transform(labelled[0]), X)
    assert sum(computed) == 24


def test_a_grid_search_over_a_pipeline_computes_every_photo_once(tmp_path, labelled, computed, decodings):
    pipeline = make_pipeline(extractor(tmp_path / "fresh"), LogisticRegression(max_iter=1000))
    search = GridSearchCV(pipeline, {"logisticregression__C": [1e-4, 1e-3, 1e-2]}, cv=3)
    search.fit(*labelled)
    assert len(search.cv_results_["params"]) == 3
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert sum(computed) == len(decodings) == 24
    assert set(search.predict(labelled[0])) <= {"cat", "dog"}
    assert sum(computed) == 24


def test_a_pipeline_scores_as_its_classifier_on_the_features(place, labelled, computed):
    paths, labels = labelled
    pipeline = make_pipeline(extractor(place / "cache"), LogisticRegression(C=0.1, max_iter=200))
    pipeline.fit(paths[::2], labels[::2])
    X = extractor(place / "cache").transform(paths)
    alone = LogisticRegression(C=0.1, max_iter=200).fit(X[::2], labels[::2])
    assert np.array_equal(pipeline.predict_proba(paths[1::2]), alone.predict_proba(X[1::2]))
    assert computed == []


def test_a_new_photo_is_the_only_one_that_is_computed(place, tmp_path, labelled, computed):
    make_photo(tmp_path / "new.png", seed=99_999)
    X = extractor(place / "cache").transform([*labelled[0], str(tmp_path / "new.png")])
    assert len(X) == 25
    assert sum(computed) == 1


# ---- as scikit-learn wants it ----------------------------------------------------------------------------


def test_get_params_gives_what_was_said_and_clone_says_it_again(tmp_path):
    ours = extractor(tmp_path, pooling="max", resize="crop")
    parameters = ours.get_params()
    assert (parameters["base"], parameters["pooling"], parameters["resize"]) == ("MobileNetV2", "max", "crop")
    copy = clone(ours)
    assert copy is not ours
    assert copy.get_params() == parameters
    assert copy.set_params(image_size=(48, 64)).image_size == (48, 64)
    assert ours.image_size == 32


def test_the_defaults_are_those_of_a_recipe():
    assert FeatureExtractor()._settings() == BaseSettings()


def test_without_a_cache_it_uses_that_of_the_command_line(place, labelled, monkeypatch, computed):
    monkeypatch.setenv("FEATCACHE_CACHE", str(place / "cache"))
    assert extractor(None).transform(labelled[0][:2]).shape == (2, 1280)
    assert computed == []


def test_transform_needs_no_fit(place, labelled):
    ours = extractor(place / "cache")
    assert np.array_equal(ours.transform(labelled[0][:2]), ours.fit(labelled[0]).transform(labelled[0][:2]))


# ---- what is refused -------------------------------------------------------------------------------------


def test_a_photo_that_cannot_be_decoded_is_refused_by_name(place, labelled, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff broken")
    with pytest.raises(DataError, match=r"broken\.jpg: .*remove it"):
        extractor(place / "cache").transform([labelled[0][0], broken])


def test_a_photo_that_is_missing_is_refused_by_name(place, labelled, tmp_path):
    with pytest.raises(DataError, match=r"gone\.jpg cannot be read"):
        extractor(place / "cache").transform([labelled[0][0], tmp_path / "gone.jpg"])


def test_a_pipe_is_refused_and_not_waited_for(place, tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(DataError, match=r"pipe\.jpg cannot be read: it is not a regular file"):
        extractor(place / "cache").transform([tmp_path / "pipe.jpg"])


@pytest.mark.parametrize(
    ("parameters", "error", "named"),
    [
        ({"pooling": "mean"}, RecipeError, "pooling = 'mean'"),
        ({"image_size": 3}, RecipeError, "image_size"),
        ({"batch_size": 0}, RecipeError, "batch_size = 0"),
        ({"base": "MobileNetV9"}, BaseNetworkError, "'MobileNetV2'"),
        ({"weights": "/no/such.h5"}, WeightsError, "no such file"),
    ],
)
def test_impossible_parameters_are_refused(tmp_path, labelled, parameters, error, named):
    with pytest.raises(error, match=named):
        extractor(tmp_path).set_params(**parameters).fit(labelled[0]).transform(labelled[0])


@pytest.mark.parametrize(("error", "dtype"), [(0.006, np.float16), (0.08, np.float32)])
def test_the_precision_is_chosen_on_the_photos_of_the_first_call(
    tmp_path, labelled, bf16_error, error, dtype
):
    bf16_error(error)
    assert extractor(tmp_path, precision="auto").transform(labelled[0]).dtype == dtype
