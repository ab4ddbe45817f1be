"""A model as one file: the same predictions where there is no store, no weights and no TensorFlow."""

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from conftest import run_cli
from fuzzing import mutations, outcomes

from featcache.errors import FormatError, ModelError, StoreError
from featcache.model import MODEL_FILE, Model
from featcache.model_files import with_hash
from featcache.runtime import keras

HEADS = ("LogisticRegression", "GaussianNB", "linear")


@pytest.fixture(scope="module")
def packed(trained, tmp_path_factory):
    """A function from a head's name to its packed model."""
    folder = tmp_path_factory.mktemp("packed")
    for head in HEADS:
        Model.load(trained / "run" / "models" / head).pack(folder / f"{head}.zip")
    return lambda head: folder / f"{head}.zip"


def photos(trained):
    return sorted((trained / "photos").glob("*/*.png"))[::3]


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_members(path, contents):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def sealed(path, contents, **facts):
    """Write a packed model whose hashes are right, whatever its members are."""
    import hashlib

    files = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items() if name != MODEL_FILE}
    changed = json.loads(contents[MODEL_FILE]) | {"files": files} | facts
    return write_members(path, contents | {MODEL_FILE: json.dumps(with_hash(changed)).encode()})


# TensorFlow and Keras cannot be imported, as where they are not installed.
ELSEWHERE = """
import json, sys
for name in ("tensorflow", "keras", "keras_hub", "tf_keras"):
    sys.modules[name] = None
import featcache as fc
model = fc.Model.load(sys.argv[1])
print(json.dumps([one.to_json() for one in model.predict(sys.argv[2:])]))
"""


@pytest.mark.parametrize("head", HEADS)
def test_a_packed_model_predicts_the_same_without_store_weights_and_tensorflow(
    trained, packed, head, tmp_path
):
    moved = shutil.copy(packed(head), tmp_path / "here.zip")
    home = tmp_path / "home"
    home.mkdir()
    places = {"HOME": str(home), "FEATCACHE_CACHE": str(home / "cache"), "XDG_CACHE_HOME": str(home)}
    asked = [*map(str, photos(trained))]
    command = [sys.executable, "-c", ELSEWHERE, str(moved), *asked]
    done = subprocess.run(
        command, env=os.environ | places, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    expected = list(Model.load(trained / "run" / "models" / head).predict(asked))
    for one, same in zip(json.loads(done.stdout), expected, strict=True):
        assert (one["path"], one["label"]) == (same.path, same.label)
        assert one["probabilities"] == pytest.approx(same.probabilities, abs=1e-6)
    assert not {"cache", "featcache"} & {path.name for path in home.iterdir()}


def test_commands_take_a_packed_model(trained, tmp_path):
    file = tmp_path / "pets.zip"
    made = run_cli("pack", trained / "run", "-o", file)
    assert (made.returncode, made.stderr) == (0, "")
    assert str(file) in made.stdout
    facts = json.loads(run_cli("info", file, "--json").stdout)
    assert (facts["kind"], facts["classes"]) == ("model, packed", ["cat", "dog"])
    (one,) = json.loads(run_cli("predict", file, photos(trained)[0], "--json").stdout)
    assert one["label"] in ("cat", "dog")


def test_the_same_model_gives_the_same_bytes_and_they_name_no_folder(trained, packed, tmp_path):
    Model.load(trained / "run" / "models" / "linear").pack(tmp_path / "again.zip")
    data = packed("linear").read_bytes()
    assert (tmp_path / "again.zip").read_bytes() == data
    assert str(trained).encode() not in data


def test_a_model_that_was_not_saved_is_packed(trained, packed, tmp_path):
    loaded = Model.load(trained / "run" / "models" / "LogisticRegression")
    fresh = Model(
        loaded.name,
        loaded.classes,
        loaded.settings,
        loaded.spec,
        loaded.head,
        loaded.scores,
        loaded.cache,
        photos=loaded.photos,
        novelty=loaded.novelty,
        conformal=loaded.conformal,
    )
    fresh.pack(tmp_path / "fresh.zip")
    asked = photos(trained)
    assert list(Model.load(tmp_path / "fresh.zip").predict(asked)) == list(loaded.predict(asked))


def test_unzipped_and_saved_again_it_still_brings_its_base(trained, packed, tmp_path):
    with zipfile.ZipFile(packed("GaussianNB")) as archive:
        archive.extractall(tmp_path / "unzipped")
    Model.load(packed("GaussianNB")).save(tmp_path / "saved")
    expected = list(Model.load(packed("GaussianNB")).predict(photos(trained)))
    for place in (tmp_path / "unzipped", tmp_path / "saved"):
        assert list(Model.load(place).predict(photos(trained))) == expected


def test_a_base_that_tensorflow_runs_by_wish_is_packed_for_openvino(trained, tmp_path):
    model = Model.load(trained / "run" / "models" / "GaussianNB")
    model.settings = model.settings.model_copy(update={"engine": "tensorflow"})
    model.save(tmp_path / "model")
    Model.load(tmp_path / "model").pack(tmp_path / "packed.zip")
    assert Model.load(tmp_path / "packed.zip").base(1).engine.name == "openvino"


def test_it_is_written_whole_or_not_at_all(trained, tmp_path, monkeypatch):
    model, file = Model.load(trained / "run"), tmp_path / "model.zip"
    model.pack(file)
    before = file.read_bytes()
    real = zipfile.ZipFile.writestr

    def full(archive, info, content):
        if info.filename == "openvino.zip":
            raise OSError(28, "No space left on device")
        real(archive, info, content)

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(StoreError, match="disk is full"):
        model.pack(file)
    assert (file.read_bytes(), [one.name for one in tmp_path.glob("*.zip*")]) == (before, ["model.zip"])
    with pytest.raises(StoreError, match="not a regular file"):
        model.pack(tmp_path)


def test_a_model_whose_base_is_gone_cannot_be_packed(trained, tmp_path, monkeypatch):
    folder = shutil.copytree(trained / "run" / "models" / "GaussianNB", tmp_path / "model")
    facts = json.loads((folder / MODEL_FILE).read_text())
    facts["base"]["settings"]["weights"] = str(tmp_path / "w.weights.h5")
    (folder / MODEL_FILE).write_text(json.dumps(with_hash(facts | {"cache": str(tmp_path / "none")})))
    with pytest.raises(ModelError, match=r"trained with the file w\.weights\.h5"):
        Model.load(folder).pack(tmp_path / "packed.zip")
    assert not (tmp_path / "packed.zip").exists()


# ---- what is refused -------------------------------------------------------------------------------------


def test_files_that_are_no_packed_models_are_refused(trained, tmp_path):
    text = tmp_path / "text.zip"
    text.write_text("no archive")
    for file in (text, trained / "run" / "features.h5", trained / "run" / "models" / "linear" / "head.keras"):
        with pytest.raises(ModelError, match="is not a packed model, or is damaged"):
            Model.load(file)


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "code.py", "head.pickle"])
def test_other_members_are_refused(packed, tmp_path, name):
    contents = members(packed("GaussianNB")) | {name: b"x"}
    with pytest.raises(ModelError, match="it holds"):
        Model.load(write_members(tmp_path / "m.zip", contents))


def test_a_member_that_is_missing_or_not_listed_is_refused(packed, tmp_path):
    contents = members(packed("LogisticRegression"))
    fewer = {name: data for name, data in contents.items() if name != "linear.npz"}
    more = contents | {"head.keras": b"x"}
    for changed in (fewer, more):
        with pytest.raises(ModelError, match=r"does not hold the files that its model\.json lists; pack"):
            Model.load(write_members(tmp_path / "m.zip", changed))


def test_a_newer_format_is_refused(packed, tmp_path):
    file = sealed(tmp_path / "m.zip", members(packed("GaussianNB")), packed=99)
    with pytest.raises(FormatError, match="format 99"):
        Model.load(file)


def test_a_folders_model_json_in_an_archive_is_refused(trained, packed, tmp_path):
    contents = members(packed("GaussianNB"))
    facts = {key: value for key, value in json.loads(contents[MODEL_FILE]).items() if key != "packed"}
    contents[MODEL_FILE] = json.dumps(with_hash(facts)).encode()
    with pytest.raises(FormatError):
        Model.load(write_members(tmp_path / "m.zip", contents))


def test_a_network_of_another_base_is_refused(trained, packed, tmp_path, monkeypatch):
    """With right hashes, by somebody who packed it so; the base cannot be built instead."""
    monkeypatch.setitem(sys.modules, "featcache.bases.sources", None)
    contents = members(packed("GaussianNB"))
    for network in (b"no network", one_layer_network()):
        model = Model.load(sealed(tmp_path / "m.zip", contents | {"openvino.zip": network}))
        with pytest.raises(ModelError, match="it cannot be built"):
            list(model.predict(photos(trained)))


def one_layer_network():
    import openvino
    from openvino import opset13

    from featcache.bases.openvino import _as_bytes

    pixels = opset13.parameter([-1, 32, 32, 3], np.uint8)
    mean = opset13.reduce_mean(opset13.convert(pixels, "f32"), np.array([1, 2]), keep_dims=False)
    return _as_bytes(openvino.Model([mean], [pixels], "means"))


def test_an_archive_that_grows_is_refused(packed, tmp_path):
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (members(packed("GaussianNB")) | {"openvino.zip": bytes(10**8)}).items():
            archive.writestr(name, data)
    (tmp_path / "bomb.zip").write_bytes(whole.getvalue())
    with pytest.raises(ModelError, match="are allowed for an archive"):
        Model.load(tmp_path / "bomb.zip")


@pytest.mark.parametrize("count", [40, pytest.param(300, marks=pytest.mark.slow)])
def test_mutated_packed_models_are_refused_or_predict_the_same(trained, packed, tmp_path, count):
    keras()  # not in every child
    file = tmp_path / "mutated.zip"
    features = np.random.default_rng(0).random((4, 1280), np.float32)

    def read(data):
        file.write_bytes(data)
        model = Model.load(file)
        return str([model.predict_features(features), model._network == members(file)["openvino.zip"]])

    for head in HEADS:
        data = packed(head).read_bytes()
        expected = read(data)
        start, end = data[:4096], data[-1024:]  # model.json, and the archive's directory
        cases = [
            *mutations(data, count // 3, seed=1),
            *(one + data[len(start) :] for one in mutations(start, count // 3, seed=2)),
            *(data[: -len(end)] + one for one in mutations(end, count // 3, seed=3)),
        ]
        found = outcomes(cases, read, expected)
        assert set(found) <= {"same", "refused"}, (head, found)
        assert found["refused"] > count / 2
