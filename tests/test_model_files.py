"""A model's folder is whole or not at all, and gives what was saved or an error of one line."""

import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from fuzzing import mutations, outcomes
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

from featcache.archives import open_archive
from featcache.bases.spec import BaseSpec
from featcache.errors import ModelError
from featcache.heads.dense.head import DenseHead
from featcache.heads.linear import load_linear
from featcache.model import Model
from featcache.model_files import read_model, with_hash
from featcache.recipe import BaseSettings
from featcache.run.layout import MODEL_FILE

OLD = Path(__file__).parent / "data" / "v0.1" / "models"
OLD_NAMES = ("linear", "hidden", "keras", "logistic", "forest")
COUNTS = [pytest.param(60, id="60"), pytest.param(500, id="500", marks=pytest.mark.slow)]

SPEC = BaseSpec.from_json(json.loads((OLD / "linear" / MODEL_FILE).read_text())["base"]["spec"])
SETTINGS = BaseSettings(name="MobileNetV2", weights="random", image_size=(32, 32))
X = np.random.default_rng(0).standard_normal((60, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)


def saved(folder, head=None, classes=("cat", "dog"), y=Y):
    head = (LogisticRegression() if head is None else head).fit(X, y)
    Model("one", classes, SETTINGS, SPEC, head, {"validation": {"accuracy": 0.5}}).save(folder)
    return folder


def says(folder) -> str:
    """Return a hash of what a model says of some features."""
    found = [(one.label, one.probability) for one in Model.load(folder).predict_features(X[:7])]
    return hashlib.sha256(repr(found).encode()).hexdigest()


@pytest.mark.parametrize("name", OLD_NAMES)
def test_models_of_version_0_1_predict_as_they_did(name):
    with np.load(OLD / "expected.npz") as expected:
        np.testing.assert_allclose(
            Model.load(OLD / name).probabilities(expected["X"]), expected[name], rtol=1e-5, atol=1e-6
        )


# ---- mutated folders -------------------------------------------------------------------------------------

HEADS = {"logistic": LogisticRegression, "bayes": GaussianNB, "dense": lambda: DenseHead(epochs=1)}


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("count", COUNTS)
def test_mutated_files_are_refused_or_give_the_same(tmp_path, kind, count):
    folder = saved(tmp_path / "model", HEADS[kind]())
    expected = says(folder)
    for path in folder.iterdir():
        data = path.read_bytes()

        def read(mutated, path=path):
            path.write_bytes(mutated)
            return says(folder)

        found = outcomes(mutations(data, count, seed=1), read, expected)
        path.write_bytes(data)
        assert set(found) <= {"same", "refused"}, (path.name, found)


@pytest.mark.parametrize("name", ["linear", "hidden", "logistic", "forest"])
@pytest.mark.parametrize("count", COUNTS)
def test_mutated_heads_of_version_0_1_are_refused_or_give_the_same(tmp_path, name, count):
    """Their model.json has no hashes: what is damaged is found by the archives' own checksums."""
    folder = shutil.copytree(OLD / name, tmp_path / "model")
    with np.load(OLD / "expected.npz") as expected:
        features = expected["X"][:7]

    expected = Model.load(folder).probabilities(features)
    for path in (path for path in folder.iterdir() if path.name != MODEL_FILE):
        data = path.read_bytes()

        def read(mutated, path=path):
            path.write_bytes(mutated)
            # a linear form whose head's hash is another is not used: then scikit-learn answers, in float32
            return str(np.allclose(Model.load(folder).probabilities(features), expected, atol=1e-5))

        found = outcomes(mutations(data, count, seed=2), read, "True")
        path.write_bytes(data)
        assert set(found) <= {"same", "refused"}, (path.name, found)


# ---- linear.npz ------------------------------------------------------------------------------------------


def reseal(folder):
    """Write the hashes that the files have now into ``model.json``, as somebody who means harm would."""
    facts = json.loads((folder / MODEL_FILE).read_text())
    for name in facts["files"]:
        facts["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / MODEL_FILE).write_text(json.dumps(with_hash(facts)))


def with_array(name, change):
    return lambda arrays, facts: arrays.update({name: change(arrays[name])})


def with_fact(**changes):
    return lambda arrays, facts: facts.update(changes)


UNFIT = {
    "complex weights": with_array("weights", lambda w: w.astype(complex)),
    "integer weights": with_array("weights", lambda w: w.astype(int)),
    "weights that are not finite": with_array("weights", lambda w: w * np.nan),
    "weights of one axis": with_array("weights", lambda w: w[:, 0]),
    "a bias for three classes": with_array("bias", lambda b: np.zeros(3)),
    "no bias": with_array("bias", lambda b: b[:0]),
    "an unknown pooling": with_fact(pooling="median"),
    "a softmax of one value": with_fact(link="softmax"),
    "an unknown link": with_fact(link=["sigmoid"]),
    "labels that are lists": with_fact(classes=[[0], [1]]),
    "a label twice": with_fact(classes=[1, 1]),
    "labels of 1 GB": with_fact(classes_dtype="S1000000000"),
    "nested JSON": lambda arrays, facts: arrays.update(facts=np.frombuffer(b"[" * 100_000, np.uint8)),
    "a list": lambda arrays, facts: arrays.update(facts=np.frombuffer(b"[1]", np.uint8)),
}


@pytest.mark.parametrize("change", UNFIT.values(), ids=UNFIT)
def test_a_linear_form_whose_parts_do_not_fit_is_not_used(tmp_path, change):
    folder = saved(tmp_path / "model")
    expected = Model.load(folder).probabilities(X)
    with np.load(folder / "linear.npz") as file:
        arrays = dict(file)
    facts = json.loads(arrays.pop("facts").tobytes())
    change(arrays, facts)
    arrays.setdefault("facts", np.frombuffer(json.dumps(facts).encode(), np.uint8))
    np.savez(folder / "linear.npz", **arrays)
    reseal(folder)
    assert load_linear(folder / "head.skops") is None
    np.testing.assert_allclose(Model.load(folder).probabilities(X), expected, atol=1e-5)


def test_linear_weights_for_other_features_are_refused(tmp_path):
    folder = saved(tmp_path / "model")
    with np.load(folder / "linear.npz") as file:
        arrays = dict(file)
    np.savez(folder / "linear.npz", **(arrays | {"weights": arrays["weights"][:2]}))
    reseal(folder)
    with pytest.raises(ModelError, match="the head takes 2 numbers a row"):
        Model.load(folder)


@pytest.mark.parametrize("head", [GaussianNB(), DenseHead(epochs=1)], ids=["skops", "keras"])
def test_features_that_do_not_fit_into_memory_are_one_line(tmp_path, head, monkeypatch):
    folder = saved(tmp_path / "model", head)
    zeros = np.zeros

    def too_large(shape, *args, **kwargs):
        if np.prod(shape) >= 1 << 31:
            raise MemoryError("Unable to allocate")
        return zeros(shape, *args, **kwargs)

    monkeypatch.setattr(np, "zeros", too_large)
    facts = json.loads((folder / MODEL_FILE).read_text())
    facts["base"]["spec"]["feature_shape"] = [1 << 31]
    (folder / MODEL_FILE).write_text(json.dumps(with_hash(facts)))
    with pytest.raises(ModelError, match="does not take this base's features: Unable to allocate"):
        Model.load(folder)


HOSTILE = [
    None,
    True,
    -1,
    0,
    1e308,
    "",
    "x" * 5000,
    "../../x",
    "a\0b",
    "\x1b[31m",
    [],
    {},
    [[]],
    [1],
    ["a", "a"],
]


def places(value, path=()):
    """Yield the path of every value in JSON-ready data."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def replaced(facts, path, value):
    facts = json.loads(json.dumps(facts))
    node = facts
    for key in path[:-1]:
        node = node[key]
    if value is HOSTILE:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return facts


@pytest.mark.parametrize("count", [pytest.param(150, id="150"), pytest.param(3000, marks=pytest.mark.slow)])
def test_no_value_of_model_json_leads_to_anything_but_a_prediction_or_one_line(tmp_path, count):
    folder = saved(tmp_path / "model")
    path = folder / MODEL_FILE
    facts = json.loads(path.read_text())
    cases = [(place, value) for place in places(facts) for value in (*HOSTILE, HOSTILE)]
    chosen = random.Random(0).sample(cases, min(count, len(cases)))

    def read(number):
        path.write_text(json.dumps(with_hash(replaced(facts, *chosen[int(number)]))))
        says(folder)
        return "read"

    found = outcomes([str(number).encode() for number in range(len(chosen))], read, "read")
    assert set(found) <= {"same", "refused"}, found


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "null", "[]", "{}", '{"format": NaN}', "{", "\0"], ids=lambda text: text[:9]
)
def test_json_that_is_no_model_is_one_line(tmp_path, text):
    folder = saved(tmp_path / "model")
    (folder / MODEL_FILE).write_text(text)
    with pytest.raises((ModelError, Exception)) as caught:
        read_model(folder)
    assert type(caught.value).__name__ in ("ModelError", "FormatError")
    assert "\n" not in str(caught.value)


def test_a_changed_file_is_named(tmp_path):
    folder = saved(tmp_path / "model", GaussianNB())
    path = folder / "head.skops"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match=r"head\.skops is damaged: its hash is wrong"):
        Model.load(folder)


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    folder = saved(tmp_path / "model")

    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("featcache.model_files.read_regular", refuse)
    with pytest.raises(ModelError, match=r"model\.json cannot be read: Permission denied$"):
        Model.load(folder)


def test_a_head_of_other_classes_is_refused(tmp_path):
    with pytest.raises(ModelError, match="2 classes, but the head knows 3 labels"):
        Model.load(saved(tmp_path / "model", y=np.arange(60) % 3))


# ---- archives --------------------------------------------------------------------------------------------


def archive(**members):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members.items():
            made.writestr(name.replace("_", "."), content)
    return data.getvalue()


def test_an_archive_that_grows_is_not_unpacked():
    with pytest.raises(ValueError, match="unpack to 104,857,600 bytes; at most"):
        open_archive(archive(a_json=b" " * (100 << 20)))


def test_a_member_that_declares_less_than_it_unpacks_to_is_not_unpacked():
    data = bytearray(archive(a_json=b" " * (300 << 20)))
    place = data.rindex(b"PK\x01\x02") + 24  # the member's size in the central directory
    data[place : place + 4] = (100).to_bytes(4, "little")
    tracemalloc.start()
    try:
        with pytest.raises((ValueError, zipfile.BadZipFile)):
            open_archive(bytes(data))
        assert tracemalloc.get_traced_memory()[1] < 50 << 20
    finally:
        tracemalloc.stop()


def array(shape, dtype="<f8", content=b""):
    data = io.BytesIO()
    np.lib.format.write_array_header_1_0(data, {"shape": shape, "fortran_order": False, "descr": dtype})
    return data.getvalue() + content


@pytest.mark.parametrize(
    "content",
    [
        array((1 << 40,)),
        array((2,), content=b"12345678"),
        array((1,), "|O", b"12345678"),
        b"\x93NUMPY\x09\x00",
    ],
    ids=["8 TiB", "short", "objects", "version"],
)
def test_an_array_that_is_not_what_its_header_declares_is_refused(content):
    with pytest.raises(ValueError, match=r"a\.npy"):
        open_archive(archive(a_npy=content))
    nested = archive(b_npz=archive(a_npy=content))
    with pytest.raises(ValueError, match=r"a\.npy"):
        open_archive(nested)


# ---- written as a whole ----------------------------------------------------------------------------------


def test_files_of_the_user_in_a_models_folder_are_kept(tmp_path):
    folder = saved(tmp_path / "model", GaussianNB())
    (folder / "export").mkdir()
    (folder / "export" / "mine.txt").write_text("mine")
    saved(folder)
    assert (folder / "export" / "mine.txt").read_text() == "mine"
    assert {path.name for path in folder.iterdir()} == {"export", "model.json", "head.skops", "linear.npz"}


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1, 0.2])
def test_a_kill_leaves_the_old_model_or_the_new_one(tmp_path, delay):
    """Two models with other classes are written in turn until the process is killed."""
    program = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests")!r})
from pathlib import Path
from sklearn.naive_bayes import GaussianNB
from sklearn.linear_model import LogisticRegression
from test_model_files import saved, Y
folder = Path(sys.argv[1])
saved(folder, GaussianNB(), ("old a", "old b"))
print("ready", flush=True)
while True:
    saved(folder, LogisticRegression(), ("new a", "new b"), 1 - Y)
    saved(folder, GaussianNB(), ("old a", "old b"))
"""
    folder = tmp_path / "models" / "one"
    process = subprocess.Popen([sys.executable, "-c", program, folder], stdout=subprocess.PIPE)
    process.stdout.readline()
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    saved(folder.with_name("other"))  # the next writer puts back what the kill left between two renames
    model = Model.load(folder)
    age = "new" if (folder / "linear.npz").exists() else "old"
    assert model.classes == (f"{age} a", f"{age} b")
    labels = [one.label for one in model.predict_features(X)]
    right = np.mean(
        [label.endswith("b") == (bool(true) != (age == "new")) for label, true in zip(labels, Y, strict=True)]
    )
    assert right > 0.8


def test_the_store_that_a_model_names_is_only_read(tmp_path):
    folder = saved(tmp_path / "model")
    path = folder / MODEL_FILE
    named = tmp_path / "named"
    path.write_text(json.dumps(with_hash(json.loads(path.read_text()) | {"cache": str(named)})))
    store = Model.load(folder)._spec_store()
    store.save_spec("key", {"a": 1})
    assert not named.exists()
    shutil.rmtree(folder)
