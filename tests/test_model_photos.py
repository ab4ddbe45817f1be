"""A model knows the photos that it was trained on and chosen on, wherever it is taken."""

import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from fuzzing import mutations, outcomes

from featcache.errors import ModelError
from featcache.model import Model
from featcache.model_files import with_hash
from featcache.model_photos import PHOTOS_FILE, ModelPhotos
from featcache.recipe import Recipe
from featcache.run.layout import MODEL_FILE
from featcache.store.feature_file import Features
from featcache.training import train_heads


def digests(*numbers):
    content = b"".join(hashlib.sha256(str(number).encode()).digest() for number in numbers)
    return np.frombuffer(content, np.uint8).reshape(-1, 32)


def test_photos_are_found_by_the_start_of_their_digest():
    photos = ModelPhotos.of(digests(1, 2, 3, 2), digests(3, 4))
    assert (len(photos.trained), len(photos.chosen)) == (3, 1)
    assert photos.trained_on(digests(1, 4, 5, 3)).tolist() == [True, False, False, True]
    assert photos.chosen_on(digests(1, 4, 5, 3)).tolist() == [False, True, False, False]
    prefix = int.from_bytes(hashlib.sha256(b"1").digest()[:8], "big")
    assert prefix in photos.trained


def test_the_file_gives_the_same_photos_and_the_same_bytes():
    photos = ModelPhotos.of(digests(*range(50)), digests())
    again = ModelPhotos.from_bytes(photos.to_bytes())
    assert again.to_bytes() == photos.to_bytes()
    assert again.trained_on(digests(*range(50))).all()
    assert not again.chosen_on(digests(*range(50))).any()


def test_damaged_files_are_refused_or_give_the_same():
    data = ModelPhotos.of(digests(*range(20)), digests(30)).to_bytes()

    def read(mutated):
        try:
            return ModelPhotos.from_bytes(mutated).to_bytes().hex()
        except ValueError as error:
            raise ModelError(str(error)) from None

    assert set(outcomes(mutations(data, 300, seed=1), read, data.hex())) <= {"same", "refused"}


@pytest.mark.parametrize(
    "trained", [np.arange(3.0), np.arange(4, dtype=np.uint64).reshape(2, 2), np.array([2, 1], np.uint64)]
)
def test_arrays_that_are_no_photos_are_one_line(trained):
    data = replace(ModelPhotos.of(digests(), digests()), trained=trained).to_bytes()
    with pytest.raises(ValueError, match="no photos of a model: an array of"):
        ModelPhotos.from_bytes(data)


def splits_of(run):
    with Features(run / "features.h5") as features:
        return {split: features[split].digests for split in features.splits}


@pytest.mark.parametrize("kind", ["LogisticRegression", "GaussianNB", "linear"])
def test_a_trained_model_knows_its_photos(trained, kind):
    splits = splits_of(trained / "run")
    photos = Model.load(trained / "run" / "models" / kind).photos
    assert photos.trained_on(splits["train"]).all()
    assert photos.chosen_on(splits["validation"]).all()
    assert not photos.trained_on(splits["validation"]).any()


def test_with_folds_the_model_was_trained_on_validation_too(trained, tmp_path):
    with Features(trained / "run" / "features.h5") as features:
        raw = features.recipe
    run = {"run": str(tmp_path / "run"), "heads": [{"type": "GaussianNB"}], "selection": {}}
    recipe = Recipe.parse(raw | run, {"data.folds": 3})
    photos = train_heads(recipe).models["GaussianNB"].photos
    splits = splits_of(tmp_path / "run")
    assert photos.trained_on(np.concatenate(list(splits.values()))).all()
    assert len(photos.chosen) == 0


def test_a_packed_model_and_one_saved_again_know_them(trained, tmp_path):
    model = Model.load(trained / "run" / "models" / "GaussianNB")
    model.pack(tmp_path / "model.zip")
    packed = Model.load(tmp_path / "model.zip")
    packed.save(tmp_path / "again")
    expected = model.photos.to_bytes()
    assert packed.photos.to_bytes() == Model.load(tmp_path / "again").photos.to_bytes() == expected


def test_a_model_without_the_file_does_not_know_them(trained, tmp_path):
    folder = shutil.copytree(trained / "run" / "models" / "GaussianNB", tmp_path / "model")
    facts = json.loads((folder / MODEL_FILE).read_text())
    del facts["files"][PHOTOS_FILE]
    (folder / MODEL_FILE).write_text(json.dumps(with_hash(facts)))
    (folder / PHOTOS_FILE).unlink()
    assert Model.load(folder).photos is None


def test_a_file_with_a_right_hash_and_wrong_content_is_one_line(trained, tmp_path):
    folder = shutil.copytree(trained / "run" / "models" / "GaussianNB", tmp_path / "model")
    (folder / PHOTOS_FILE).write_bytes(b"nothing")
    facts = json.loads((folder / MODEL_FILE).read_text())
    facts["files"][PHOTOS_FILE] = hashlib.sha256(b"nothing").hexdigest()
    (folder / MODEL_FILE).write_text(json.dumps(with_hash(facts)))
    with pytest.raises(ModelError, match=r"photos\.npz is damaged: no photos of a model"):
        Model.load(folder)
