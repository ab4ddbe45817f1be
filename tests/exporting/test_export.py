"""Every format says what the model says, the documentation's programs too; what fails leaves nothing."""

import io
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, make_photos, run_cli
from PIL import Image
from rich.console import Console

import featcache as fc
from featcache.cli import main
from featcache.errors import DataError, ExportError, ModelError
from featcache.exporting import photos as photos_module
from featcache.exporting import runtimes, stage
from featcache.exporting.runtimes import RUNTIMES
from featcache.model import Model
from featcache.model_files import with_hash
from featcache.recipe import Recipe
from featcache.report.exports import export_table
from featcache.runtime import keras
from featcache.training import train_heads

FORMATS = tuple(RUNTIMES)
EXAMPLES = {
    "Keras": "keras",
    "SavedModel": "saved_model",
    "TensorFlow Lite": "tflite",
    "ONNX": "onnx",
    "OpenVINO": "openvino",
}


def write_base(path, seed):
    """Save a network with the layers that converters treat in ways of their own."""
    layers = keras().layers
    initial = keras().initializers.RandomNormal(stddev=0.3, seed=seed)
    network = [
        keras().Input((32, 32, 3)),
        layers.Conv2D(32, 3, strides=4, activation="relu", kernel_initializer=initial),
        layers.DepthwiseConv2D(3, padding="same", depthwise_initializer=initial),
        layers.BatchNormalization(),
        layers.ReLU(max_value=6.0),
        layers.Conv2D(256, 3, activation="swish", kernel_initializer=initial),
    ]
    keras().Sequential(network).save(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """140 photos, dark dogs and bright cats, and heads on a small network."""
    place = tmp_path_factory.mktemp("exporting")
    make_photos(place / "photos", per_class=70)
    for path in (place / "photos").glob("*/*"):
        dark = path.parent.name == "dog"
        Image.open(path).point(lambda value, dark=dark: value // 3 if dark else 160 + value // 3).save(path)
    write_base(place / "small.keras", seed=1)
    small = {"name": str(place / "small.keras"), "image_size": 32, "preprocessing": "rescale"}
    small["precision"] = "f32"
    train_heads(
        Recipe.parse(
            {
                "data": {"root": str(place / "photos"), "split": {"train": 0.7, "validation": 0.3}},
                "base": small,
                "heads": [
                    {"type": "dense", "epochs": 20, "learning_rate": 0.01},
                    {"type": "LogisticRegression"},
                    {"type": "RandomForestClassifier", "n_estimators": 3},
                    {"type": "LinearSVC"},
                ],
                "cache": str(place / "cache"),
                "run": str(place / "run"),
            }
        )
    )
    return place


@pytest.fixture(scope="module")
def models(place):
    return place / "run" / "models"


@pytest.fixture(scope="module")
def exported(models):
    """The linear head in all formats."""
    return {to: fc.export(models / "linear", to) for to in FORMATS}


@pytest.mark.parametrize("to", FORMATS)
def test_each_format_says_what_the_model_says(exported, to):
    found = exported[to].comparison
    assert found.photos >= 100
    assert found.equal_labels == 1
    assert found.largest_difference < 1e-4
    assert found.accuracy == found.exported_accuracy > 0.9


@pytest.mark.parametrize("to", [to for to in FORMATS if to != "tflite"])
def test_novelty_is_a_second_output_that_is_checked_on_photos(models, place, tmp_path, to):
    result = fc.export(models / "linear", to, output=tmp_path / "out", novelty=True)
    assert result.comparison.equal_labels == 1
    assert result.novelty.equally_rejected > 0.99
    assert result.novelty.largest_difference < 0.02
    facts = json.loads((tmp_path / "out" / "export.json").read_text())
    assert facts["novelty"] == {"name": "novelty", "shape": [], "dtype": "float32"}
    assert facts["check"]["novelty"] == result.novelty.to_json()
    run = RUNTIMES[to].open(result.file, "novelty")
    assert run(np.zeros((2, 32, 32, 3), np.uint8)).shape == (2,)


def test_novelty_for_tflite_or_of_a_model_without_it_is_refused(models, tmp_path):
    with pytest.raises(ExportError, match="--novelty goes with --to keras"):
        fc.export(models / "linear", "tflite", novelty=True)
    old = fc.Model.load(models / "linear")
    old.novelty = old.conformal = None
    old.save(tmp_path / "old")
    with pytest.raises(ExportError, match=r"has no novelty score.*train the head again"):
        fc.export(tmp_path / "old", "onnx", novelty=True)


def test_openvino_without_options_is_compared_and_stated_beside_the_check(models, tmp_path, monkeypatch):
    """A processor with bf16 gives other probabilities then; that is stated and refuses nothing."""
    real = RUNTIMES["openvino"]

    def in_bf16(path):
        run = real.open(path)
        return lambda pixels: np.clip(run(pixels) + np.array([0.3, -0.3]), 0, 1)

    monkeypatch.setitem(RUNTIMES, "openvino", real._replace(open_default=in_bf16))
    result = fc.export(models / "linear", "openvino", output=tmp_path / "out")
    assert result.comparison.largest_difference < 1e-5
    assert result.by_default.largest_difference == pytest.approx(0.3, abs=1e-4)
    facts = json.loads((tmp_path / "out" / "export.json").read_text())["check"]
    assert facts["precision"] == "f32"
    assert facts["by_default"]["largest_difference"] == pytest.approx(0.3, abs=1e-4)
    assert facts["as_trained"] is None
    console = Console(width=200, file=io.StringIO())
    console.print(export_table(result))
    assert "openvino without options, model in f32" in console.file.getvalue()


def test_a_model_trained_on_bf16_features_is_checked_in_f32(place, tmp_path, bf16_error):
    """Its head has seen features that differ by 8%, and the exported network computes without that."""
    bf16_error(0.08)
    small = {"name": str(place / "small.keras"), "image_size": 32, "preprocessing": "rescale"}
    recipe = {
        "data": {"root": str(place / "photos"), "split": {"train": 0.7, "validation": 0.3}},
        "base": {**small, "precision": "bf16"},
        "heads": [{"type": "LogisticRegression"}],
        "cache": str(tmp_path / "cache"),
        "run": str(tmp_path / "run"),
    }
    train_heads(Recipe.parse(recipe))
    result = fc.export(tmp_path / "run", "openvino")
    assert Model.load(tmp_path / "run").spec.precision == "bf16"
    assert result.comparison.largest_difference < 1e-4
    assert result.as_trained.largest_difference > 10 * result.comparison.largest_difference


@pytest.mark.bf16
def test_openvino_itself_computes_in_bf16_unless_it_is_asked_for_f32(exported):
    found = exported["openvino"]
    assert found.by_default.largest_difference > 10 * found.comparison.largest_difference


@pytest.mark.parametrize("to", FORMATS)
def test_a_scikit_learn_head_becomes_a_dense_layer(models, to):
    found = fc.export(models / "LogisticRegression", to).comparison
    assert found.equal_labels == 1
    assert found.largest_difference < 1e-3


@pytest.mark.parametrize("to", FORMATS)
def test_names_and_facts_lie_beside_the_file(exported, models, to):
    folder = exported[to].folder
    assert folder == models.parent / "exports" / "linear" / to
    assert (folder / "labels.txt").read_text() == "cat\ndog\n"
    facts = json.loads((folder / "export.json").read_text())
    assert (facts["to"], facts["classes"], facts["bytes"]) == (to, ["cat", "dog"], exported[to].bytes)
    assert facts["input"]["shape"] == [32, 32, 3]
    assert (facts["input"]["resize"], facts["input"]["interpolation"]) == ("stretch", "bilinear")
    assert facts["check"]["equal_labels"] == 1
    assert facts["check"]["runtime"].startswith(RUNTIMES[to].name)
    assert (folder / facts["file"]).resolve() == exported[to].file.resolve()
    assert not list(folder.parent.glob(".*"))


def test_names_are_in_the_files_too(exported):
    onnx, openvino = pytest.importorskip("onnx"), pytest.importorskip("openvino")
    properties = {one.key: one.value for one in onnx.load(exported["onnx"].file).metadata_props}
    assert json.loads(properties["classes"]) == ["cat", "dog"]
    info = openvino.Core().read_model(exported["openvino"].file).get_rt_info(["featcache", "classes"])
    assert json.loads(info.astype(str)) == ["cat", "dog"]
    for to in ("keras", "tflite"):
        with zipfile.ZipFile(exported[to].file) as archive:
            assert archive.read("labels.txt") == b"cat\ndog\n"
    assert (exported["saved_model"].folder / "assets.extra" / "labels.txt").read_text() == "cat\ndog\n"


def examples():
    text = (ROOT / "docs" / "exporting.md").read_text()
    found = dict(re.findall(r"### ([^\n]+)\n\n```python\n(.*?)```", text, re.DOTALL))
    assert found.keys() == EXAMPLES.keys()
    return found.items()


@pytest.mark.parametrize(("title", "program"), examples())
def test_the_documentations_program_classifies_a_photo(exported, models, place, tmp_path, title, program):
    assert program.count("\n") <= 20
    assert "featcache" not in program
    photo = place / "photos" / "dog" / "007.png"
    (expected,) = Model.load(models / "linear").predict([photo])
    script = tmp_path / "classify.py"
    script.write_text(program)
    command = [sys.executable, script, exported[EXAMPLES[title]].folder, photo]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    label, probability = done.stdout.split()
    assert label == expected.label == "dog"
    assert float(probability) == pytest.approx(expected.probability, abs=0.0011)


@pytest.mark.parametrize("quantize", ["float16", "int8"])
def test_tflite_gets_smaller_by_quantising(exported, models, quantize):
    small = fc.export(models / "linear", "tflite", quantize=quantize)
    assert small.folder.name == f"tflite-{quantize}"
    assert small.bytes < exported["tflite"].bytes * {"float16": 0.6, "int8": 0.4}[quantize]
    assert small.comparison.required == (0.95 if quantize == "int8" else 0.99)
    assert small.comparison.passed
    assert small.comparison.largest_difference > exported["tflite"].comparison.largest_difference


def test_another_answer_is_refused_and_the_earlier_export_stays(exported, models, monkeypatch):
    before = {path: path.read_bytes() for path in exported["onnx"].folder.rglob("*")}
    whole = stage.whole_network

    def turned(model):
        network = whole(model)
        layer = network.get_layer("head_with_probabilities").get_layer("pair")
        layer.set_weights([-value for value in layer.get_weights()])
        return network

    monkeypatch.setattr(stage, "whole_network", turned)
    with pytest.raises(ExportError, match=r"gives the model's label for 0\.0% of 140 photos, and 99%"):
        fc.export(models / "linear", "onnx")
    assert {path: path.read_bytes() for path in exported["onnx"].folder.rglob("*")} == before
    with pytest.raises(ExportError, match="nothing was kept"):
        fc.export(models / "linear", "onnx", output=models / "new")
    assert not (models / "new").exists()
    assert not list(models.glob(".new*"))


def test_an_export_replaces_the_one_before_but_nothing_else(exported, models, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(exported["keras"].folder, out)
    assert fc.export(models / "LogisticRegression", "keras", output=out).file.is_file()
    assert {path.name for path in out.iterdir()} == {
        "LogisticRegression.keras",
        "labels.txt",
        "export.json",
    }
    (out / "diary.txt").write_text("mine")
    with pytest.raises(ExportError, match="holds more than an earlier export"):
        fc.export(models / "linear", "keras", output=out)
    assert (out / "diary.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("RandomForestClassifier", "RandomForestClassifier does not decide by one product"),
        ("LinearSVC", 'decides without probabilities.* calibrate = "temperature"'),
    ],
)
def test_heads_that_are_no_layers_are_refused_with_the_reason(models, head, message):
    with pytest.raises(ModelError, match=message):
        fc.export(models / head, "keras")
    assert not (models.parent / "exports" / head).exists()


def test_a_missing_runtime_is_named_with_its_install_line(models, monkeypatch):
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None if name == "onnxruntime" else object())
    with pytest.raises(ExportError, match=r"needs onnxruntime.*pip install 'featcache\[export\]'"):
        fc.export(models / "linear", "onnx")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"to": "onx"}, "no format is named 'onx'.*Did you mean 'onnx'"),
        ({"to": "tflite", "quantize": "int4"}, "it takes none, float16, int8"),
        ({"to": "onnx", "quantize": "int8"}, "goes with --to tflite only"),
    ],
)
def test_what_cannot_be_is_refused(models, arguments, message):
    with pytest.raises(ExportError, match=message):
        fc.export(models / "linear", **arguments)


def test_photos_that_changed_are_left_out_and_a_folder_can_stand_in(models, place, tmp_path, monkeypatch):
    monkeypatch.setattr(photos_module, "ENOUGH", 1)
    loaded = Model.load(models / "linear")
    source = photos_module.of_run(models / "linear", loaded)
    all_of_them = source.to_check(loaded).labels
    assert set(all_of_them) == {0, 1}
    first = Path(source.splits["validation"][0][0].path)
    content = first.read_bytes()
    try:
        first.write_bytes(content + b"changed")
        assert len(source.to_check(loaded).labels) == len(all_of_them) - 1
    finally:
        first.write_bytes(content)
    (place / "photos").rename(place / "moved")
    try:
        with pytest.raises(DataError, match=r"no photo left that is unchanged.*--photos FOLDER"):
            fc.export(models / "linear", "onnx")
        result = fc.export(models / "linear", "onnx", output=tmp_path / "out", photos=place / "moved")
    finally:
        (place / "moved").rename(place / "photos")
    assert (result.comparison.photos, result.comparison.labelled) == (140, 140)


def test_a_base_whose_weights_are_others_now_is_refused(models, place, tmp_path):
    shutil.copytree(models / "linear", tmp_path / "linear")
    write_base(tmp_path / "other.keras", seed=2)
    facts = json.loads((tmp_path / "linear" / "model.json").read_text())
    facts["base"]["settings"]["name"] = str(tmp_path / "other.keras")
    (tmp_path / "linear" / "model.json").write_text(json.dumps(with_hash(facts)))
    with pytest.raises(ModelError, match="its base is now"):
        fc.export(tmp_path / "linear", "keras", photos=place / "photos")
    assert not (tmp_path / "linear-export").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNetV2", "VGG16", "EfficientNetB0", "hub:resnet_18_imagenet"])
@pytest.mark.parametrize("to", FORMATS)
def test_networks_of_keras_with_their_own_preprocessing(place, tmp_path, name, to):
    if name.startswith("hub:"):
        pytest.importorskip("keras_hub")
    recipe = {
        "data": {"root": str(place / "photos")},
        "base": {"name": name, "weights": "random", "image_size": 32, "batch_size": 8},
        "heads": [{"type": "dense", "epochs": 5}],
        "cache": str(place / "cache"),
        "run": str(tmp_path / "run"),
    }
    train_heads(Recipe.parse(recipe))
    assert fc.export(tmp_path / "run", to).comparison.largest_difference < 1e-3


def test_the_command_prints_json_or_a_table(models, tmp_path, capfd):
    command = ["export", str(models / "linear"), "--to", "openvino", "-o", str(tmp_path / "out")]
    assert main([*command, "--json"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert result["check"]["equal_labels"] == 1
    assert Path(result["file"]) == tmp_path / "out" / "linear.xml"
    assert main(command) == 0
    assert f"Export: {tmp_path / 'out' / 'linear.xml'}" in capfd.readouterr().out


def test_the_command_fails_with_status_1_in_one_line(models):
    failed = run_cli("export", models / "RandomForestClassifier", "--to", "openvino")
    assert failed.returncode == 1
    assert failed.stderr.startswith("featcache: RandomForestClassifier does not")
    assert failed.stderr.count("\n") == 1


def test_the_table_says_what_the_check_found(exported):
    console = Console(width=200, file=io.StringIO())
    console.print(export_table(exported["onnx"]))
    printed = console.file.getvalue()
    assert "checked with ONNX Runtime" in printed
    assert "100.0%" in printed
    assert "140" in printed


def test_spread_takes_rows_evenly():
    assert photos_module.spread(range(10), 4) == [0, 2, 5, 7]
    assert photos_module.spread(range(3), 4) == [0, 1, 2]
    assert np.ptp(np.diff(photos_module.spread(range(1000), 500))) == 0
