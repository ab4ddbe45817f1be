import dataclasses
from pathlib import Path

import pytest

from featcache.bases.spec import APPLICATIONS, BaseSpec, check_settings, spec_key
from featcache.errors import BaseNetworkError, WeightsError
from featcache.recipe import BaseSettings

SPEC = BaseSpec(
    name="VGG16",
    architecture="keras.applications.VGG16",
    arguments={},
    weights="ab" * 32,
    layer="block5_pool",
    pooling="none",
    image_size=(150, 150),
    resize="stretch",
    interpolation="nearest",
    preprocessing="rescale",
    precision="f32",
    dtype="float32",
    feature_shape=(4, 4, 512),
)

CHANGES = {
    "architecture": "keras.applications.VGG19",
    "arguments": {"alpha": 0.5},
    "weights": "cd" * 32,
    "layer": "block4_pool",
    "pooling": "avg",
    "image_size": (150, 151),
    "resize": "crop",
    "interpolation": "box",
    "range": [0.0, 4095.0],
    "color_profile": "ignore",
    "preprocessing": "none",
    "precision": "bf16",
    "dtype": "float16",
    "decoder": 99,
    "networks": 99,
}


@pytest.mark.parametrize("field", CHANGES)
def test_everything_that_changes_the_numbers_changes_the_fingerprint(field):
    changed = BaseSpec.from_json(SPEC.to_json() | {field: CHANGES[field]})
    assert changed.fingerprint != SPEC.fingerprint


def test_the_name_is_no_part_of_the_fingerprint():
    assert BaseSpec.from_json(SPEC.to_json() | {"name": "renamed"}).fingerprint == SPEC.fingerprint


def test_the_fingerprint_is_the_same_on_every_machine():
    # a change here makes every store in the world useless: it must be meant
    assert SPEC.fingerprint == "d2c321655a074ec4"
    assert BaseSpec.from_json(SPEC.to_json()) == SPEC
    assert SPEC.row_bytes == 4 * 4 * 512 * 4


def test_a_spec_with_a_range_reads_back_the_same():
    spec = dataclasses.replace(SPEC, range=(0.0, 4095.0), color_profile="ignore")
    assert BaseSpec.from_json(spec.to_json()) == spec


def test_later_settings_are_left_out_at_their_default():
    """So fingerprints and keys stay what they were before there were these settings."""
    assert not {"range", "color_profile"} & SPEC.to_json().keys()
    assert spec_key(BaseSettings(range="full", color_profile="convert")) == spec_key(BaseSettings())
    assert spec_key(BaseSettings(max_pixels=1000)) == spec_key(BaseSettings())
    for changed in ({"range": "minmax"}, {"range": (0.0, 9.0)}, {"color_profile": "ignore"}):
        assert spec_key(BaseSettings(**changed)) != spec_key(BaseSettings())


@pytest.mark.parametrize("given", ["half", [1.0], [2.0, 1.0], [0, 1], [0.0, None], 3, None, {}])
def test_an_impossible_range_of_a_file_is_refused(given):
    with pytest.raises(ValueError, match="range"):
        BaseSpec.from_json(SPEC.to_json() | {"range": given})


def test_the_batch_size_is_not_part_of_the_key_and_a_file_counts_by_its_bytes(tmp_path):
    one, two = tmp_path / "a.h5", tmp_path / "b" / "a.h5"
    two.parent.mkdir()
    for path in (one, two):
        path.write_bytes(b"weights")
    settings = BaseSettings(weights=str(one))
    assert spec_key(settings) == spec_key(BaseSettings(weights=str(two), batch_size=7))
    one.write_bytes(b"others")
    assert spec_key(settings) != spec_key(BaseSettings(weights=str(two)))


def test_the_catalogue_is_keras_own():
    from featcache.runtime import keras

    applications = keras().applications
    assert {name for name in dir(applications) if name[0].isupper()} == set(APPLICATIONS)
    for module in APPLICATIONS.values():
        assert callable(getattr(applications, module).preprocess_input)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"name": "MobilNetV2"}, BaseNetworkError, "Did you mean 'MobileNetV2'"),
        ({"name": "absent.keras"}, BaseNetworkError, "no such file"),
        ({"weights": "absent.weights.h5"}, WeightsError, '"imagenet" or "random"'),
        ({"arguments": {"include_top": True}}, BaseNetworkError, "set by featcache itself"),
    ],
)
def test_what_can_be_known_early_is_refused_early(given, error, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words):
        check_settings(BaseSettings(**given))


def test_a_missing_weights_file_is_not_taken_for_a_folder(tmp_path):
    with pytest.raises(WeightsError):
        check_settings(BaseSettings(weights=str(Path(tmp_path))))
