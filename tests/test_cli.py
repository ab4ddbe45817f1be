"""The command line as its users run it: real processes, their output and their exit status."""

import contextlib
import csv
import io
import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import ROOT, make_photo, make_photos, run_cli
from PIL import Image

from featcache.cli import main
from featcache.errors import FeatcacheError
from featcache.store.feature_file import Features
from featcache.store.seal import seal

TINY = ("--weights", "random", "--image-size", 32, "--set", "base.arguments={alpha=0.35}")

COMMANDS = (
    "features",
    "heads",
    "sweep",
    "finetune",
    "run",
    "info",
    "sample",
    "predict",
    "evaluate",
    "export",
    "pack",
    "cache",
)
HEAD_KEYS = {
    *("name", "fit_seconds", "validation", "only_class", "test", "model", "trained_from", "model_sha256"),
}
FEATURES_KEYS = {
    *(
        "run",
        "features_file",
        "photos",
        "rows",
        "computed",
        "reused",
        "skipped",
        "findings",
        "images_per_second",
        "precision",
        "dtype",
        "bf16_difference",
        "bf16_photos",
        "seconds",
    ),
}
_MEASURED = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "roc_auc", "average_precision", "ece")
SCORE_KEYS = {"n", "confusion", "per_class"} | {
    f"{name}{end}" for name in _MEASURED for end in ("", "_low", "_high")
}


class Place:
    """Photos, store and run folder that all tests here look at; one test's own run is elsewhere."""

    def __init__(self, folder: Path):
        self.photos, self.cache, self.run = folder / "photos", folder / "cache", folder / "run"
        self.recipe = folder / "recipe.toml"
        self.result = {}

    def options(self, run=None):
        return (*TINY, "--cache", self.cache, "--run", run or self.run)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Photos, among them a broken one, and two heads trained on them by one real command."""
    place = Place(tmp_path_factory.mktemp("cli"))
    make_photos(place.photos)
    (place.photos / "cat" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    place.recipe.write_text(
        f"[data]\nroot = '{place.photos}'\nsplit = {{ train = 0.6, validation = 0.2, test = 0.2 }}\n"
        "[[heads]]\ntype = 'LogisticRegression'\n"
        "[[heads]]\ntype = 'dense'\nepochs = 2\n"
        "[selection]\nmethod = 'validation'\n"
    )
    done = run_cli("heads", place.recipe, *place.options(), "--json")
    assert done.returncode == 0, done.stderr
    place.result = json.loads(done.stdout)
    return place


def run_watched(*arguments):
    """Run a command; return it and whether TensorFlow was imported."""
    driver = (
        "import sys; from featcache.cli import main; status = main(sys.argv[1:]); "
        "print('tensorflow' in sys.modules, file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", driver, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    return done, done.stderr.splitlines()[-1] == "True"


def run_here(*arguments):
    """Run a command in this process, which has imported already what a new one would take seconds for."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(list(map(str, arguments)))
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())


def refused(done, *named):
    """Assert that a command failed as an expected failure does: one clear line, no traceback."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("featcache: ")]
    for part in named:
        assert part in line


# ---- help and version ------------------------------------------------------------------------------------


def test_help_lists_the_commands_and_needs_no_tensorflow():
    done, imported = run_watched("--help")
    assert done.returncode == 0
    assert not imported
    for command in COMMANDS:
        assert f"\n  {command} " in done.stdout


def test_version_is_that_of_the_package():
    done = run_cli("--version")
    assert (done.returncode, done.stdout.strip()) == (0, version("featcache"))


def test_the_installed_command_is_the_same():
    command = Path(sys.executable).with_name("featcache")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, version("featcache"))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    assert main([command, "--help"]) == 0
    assert f"{command} [OPTIONS]" in capsys.readouterr().out


# ---- wrong usage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("features",),
        ("features", "photos", "--nonsense"),
        ("features", "photos", "--image-size", "large"),
        ("predict", "model"),
        ("predict", "model", "photo.jpg", "--json", "--csv"),
        ("predict", "model", "photo.jpg", "--wrong-first"),
        ("pack", "features.h5"),
    ],
    ids=" ".join,
)
def test_wrong_usage_has_status_2(arguments, capsys):
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Usage:" in printed.err


def test_wrong_usage_of_the_real_command_has_status_2():
    done = run_cli("features", "photos", "--nonsense")
    assert done.returncode == 2
    assert "--nonsense" in done.stderr
    assert "Traceback" not in done.stderr


# ---- what users get wrong --------------------------------------------------------------------------------


def test_a_missing_folder(tmp_path):
    refused(run_cli("features", tmp_path / "nothing"), "nothing does not exist", "folder of photos")


def test_a_missing_folder_in_a_recipe(tmp_path):
    (tmp_path / "recipe.toml").write_text("[data]\nroot = 'no/such/folder'\n")
    refused(run_cli("features", tmp_path / "recipe.toml"), "no/such/folder does not exist")


def test_an_empty_folder(tmp_path):
    refused(run_cli("heads", tmp_path), "is empty", "one sub-folder per class")


def test_a_single_class(tmp_path):
    make_photos(tmp_path, per_class=2, classes=("cat",))
    refused(run_cli("features", tmp_path), "one class only, 'cat'")


def test_a_recipe_that_is_no_toml(tmp_path):
    (tmp_path / "recipe.toml").write_text("[data\n")
    refused(run_cli("features", tmp_path / "recipe.toml"), "recipe.toml is not a TOML recipe", "line 1")


def test_an_unknown_key(tmp_path):
    (tmp_path / "recipe.toml").write_text("[data]\nroot = 'photos'\n[base]\nimagesize = 96\n")
    refused(
        run_cli("heads", tmp_path / "recipe.toml"),
        "unknown key 'base.imagesize'",
        "Did you mean 'image_size'",
    )


def test_an_override_of_an_unknown_key_and_one_without_a_value(tmp_path):
    refused(run_here("features", tmp_path, "--set", "base.size=96"), "unknown key 'base.size'")
    refused(run_here("features", tmp_path, "--set", "base.size"), "is not KEY=VALUE")


def test_an_unknown_network(tmp_path):
    make_photos(tmp_path)
    refused(
        run_here("features", tmp_path, "--base", "VGG-16"), "base.name = 'VGG-16'", "Did you mean 'VGG16'"
    )


def test_an_unknown_type_of_head(tmp_path):
    (tmp_path / "recipe.toml").write_text("[data]\nroot = 'photos'\n[[heads]]\ntype = 'Forest'\n")
    done = run_here("heads", tmp_path / "recipe.toml")
    refused(
        done,
        "head 'Forest'",
        "neither featcache's own nor a scikit-learn classifier",
        "RandomForestClassifier",
    )


def test_an_unknown_name_of_a_head(place):
    refused(
        run_cli("heads", place.recipe, "--head", "Logistic"),
        "no head is named 'Logistic'",
        "LogisticRegression",
    )


def test_a_weights_file_that_is_not_there(place):
    refused(run_here("features", place.photos, "--weights", "none.h5"), "'none.h5': there is no such file")


@pytest.mark.parametrize("command", ["info", "pack"])
def test_a_feature_file_of_a_newer_format(place, tmp_path, command):
    newer = Path(shutil.copy(place.run / "features.h5", tmp_path))
    with newer.open("r+b") as file:
        seal(file, number=99)
    more = ("-o", tmp_path / "packed.h5") if command == "pack" else ()
    refused(run_here(command, newer, *more), "has format 99", "upgrade featcache")
    assert not (tmp_path / "packed.h5").exists()


def test_a_feature_file_whose_shard_is_gone(place, tmp_path):
    whole = h5py.File(place.run / "features.h5")
    shards = [Path(whole.attrs["store"]) / name for name in whole["shards"].asstr()]
    whole.close()
    aside = shards[0].rename(tmp_path / "aside")
    try:
        refused(run_here("info", place.run / "features.h5"), shards[0].name, "features.h5 needs it")
    finally:
        aside.rename(shards[0])


def test_what_is_no_model(place, tmp_path):
    done = run_here("predict", tmp_path, place.photos / "cat" / "001.png")
    refused(done, f"{tmp_path} is no model", "runs/NAME")


def test_what_is_no_feature_file(tmp_path):
    (tmp_path / "x.h5").write_text("not HDF5")
    refused(run_here("info", tmp_path / "x.h5"), "x.h5 is not a feature file")


def test_debug_shows_the_traceback(tmp_path):
    done = run_cli("--debug", "features", tmp_path / "nothing")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "RecipeError" in done.stderr


# ---- features --------------------------------------------------------------------------------------------


def test_the_second_features_computes_nothing_and_needs_no_tensorflow(place, tmp_path):
    done, imported = run_watched("features", place.recipe, *place.options(tmp_path / "run"), "--json")
    result = json.loads(done.stdout)
    assert not imported
    assert set(result) == FEATURES_KEYS
    assert (result["rows"], result["computed"], result["reused"]) == (24, 0, 24)
    assert result["run"] == str(tmp_path / "run")
    assert result["images_per_second"] == 0
    ((broken),) = result["skipped"]
    assert set(broken) == {"path", "reason"}
    assert broken["path"] == str(place.photos / "cat" / "broken.jpg")
    assert Path(result["features_file"]).is_file()


def test_features_for_people_says_what_was_done_and_where_it_is(place, tmp_path):
    done = run_cli("features", place.recipe, *place.options(tmp_path / "run"))
    assert done.returncode == 0
    assert "24 rows: 0 computed, 24 reused, 1 skipped" in done.stdout
    assert f"Features: {tmp_path / 'run' / 'features.h5'}" in done.stdout
    assert str(place.photos / "cat" / "broken.jpg") in done.stdout
    assert "24 are in the store" in done.stderr


def test_strict_refuses_a_photo_that_cannot_be_used(place, tmp_path):
    done = run_cli("features", place.recipe, *place.options(tmp_path / "run"), "--strict")
    refused(done, "broken.jpg", "--strict")
    assert not (tmp_path / "run" / "features.h5").exists()


# ---- heads -----------------------------------------------------------------------------------------------


def test_heads_as_json_has_exactly_the_documented_keys(place):
    result = place.result
    assert set(result) == {"run", "features", "heads", "failed", "best", "metric", "test_looks"}
    assert set(result["features"]) == FEATURES_KEYS
    assert (result["features"]["rows"], result["features"]["computed"]) == (24, 24)
    assert result["features"]["images_per_second"] > 0
    assert [head["name"] for head in result["heads"]] == ["LogisticRegression", "linear"]
    for head in result["heads"]:
        assert set(head) == HEAD_KEYS
        assert set(head["validation"]) == SCORE_KEYS
        assert (head["test"] is not None) == (head["name"] == result["best"])
        assert (Path(head["model"]) / "model.json").is_file()
    written = json.loads((place.run / "heads.json").read_text())
    written["test_looks"] = written["test_looks"]["count"]
    assert {key: written[key] for key in result} == result


def test_heads_of_scikit_learn_on_stored_features_need_no_tensorflow(place, tmp_path):
    done, imported = run_watched(
        "heads", place.recipe, *place.options(tmp_path / "run"), "--head", "LogisticRegression"
    )
    assert done.returncode == 0
    assert not imported
    assert "LogisticRegression" in done.stdout
    assert "linear" not in done.stdout
    (before,) = [one for one in place.result["heads"] if one["name"] == "LogisticRegression"]
    assert f"{100 * before['validation']['accuracy']:.1f}%" in done.stdout
    assert "Best on validation: LogisticRegression" in done.stdout
    assert "; on test " in done.stdout
    assert f"Model: {tmp_path / 'run' / 'models' / 'LogisticRegression'}" in done.stdout


TOO_MANY = ("--set", "heads=[{type='GaussianNB'}, {type='KNeighborsClassifier', n_neighbors=1000}]")


@pytest.mark.parametrize("command", ["heads", "run"])
def test_a_head_that_fails_is_shown_beside_the_others_and_the_status_is_1(place, tmp_path, command):
    done = run_here(command, place.recipe, *place.options(tmp_path / "run"), *TOO_MANY)
    assert done.returncode == 1
    assert "KNeighborsClassifier failed: it cannot be trained on these features: " in done.stdout
    assert "Best on validation: GaussianNB" in done.stdout
    assert done.stderr.splitlines()[-1] == "featcache: 1 of 2 heads failed: KNeighborsClassifier"


def test_a_head_that_fails_is_in_the_json(place, tmp_path):
    done = run_cli("heads", place.recipe, *place.options(tmp_path / "run"), *TOO_MANY, "--json")
    assert done.returncode == 1
    printed = json.loads(done.stdout)
    assert [head["name"] for head in printed["heads"]] == ["GaussianNB"]
    assert [failure["name"] for failure in printed["failed"]] == ["KNeighborsClassifier"]


def test_curves_that_cannot_be_written_do_not_take_the_table(place, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "curves").touch()
    options = (*place.options(tmp_path / "run"), "--head", "linear", "--plots")
    done = run_here("heads", place.recipe, *options)
    assert done.returncode == 1
    assert "Best on validation: linear" in done.stdout
    assert "curves" in done.stderr.splitlines()[-1]


def test_a_head_that_predicts_one_class_only_is_said_and_is_not_the_best(place, tmp_path):
    dummy = (
        "--set",
        "heads=[{type='DummyClassifier', strategy='constant', constant=1}, {type='GaussianNB'}]",
    )
    done = run_here("heads", place.recipe, *place.options(tmp_path / "run"), *dummy)
    assert done.returncode == 0, done.stderr
    assert "DummyClassifier predicts one class only: dog" in done.stdout
    assert "Best on validation: GaussianNB" in done.stdout


# ---- whose run it is -------------------------------------------------------------------------------------


def files_and_times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("features", ()),
        ("heads", ()),
        ("sweep", ()),
        ("finetune", ("--unfreeze-from", 100)),
        ("run", ()),
    ],
)
def test_results_of_another_base_are_replaced_only_with_overwrite(place, tmp_path, command, more):
    before = files_and_times(place.run)
    done = run_here(command, place.recipe, *place.options(), *more, "--image-size", 48)
    refused(done, f"{place.run} holds results of another base", "image_size", "--run", "--overwrite")
    assert files_and_times(place.run) == before


def test_overwrite_replaces_results_of_other_photos(place, tmp_path):
    make_photos(tmp_path / "other", per_class=10)
    options = place.options(tmp_path / "run")
    assert run_here("features", place.photos, *options).returncode == 0
    assert run_here("features", place.photos, *options).returncode == 0, "the same asks nothing"
    refused(run_here("features", tmp_path / "other", *options), "other photos", str(tmp_path / "other"))
    assert run_here("features", tmp_path / "other", *options, "--overwrite").returncode == 0
    refused(run_here("features", place.photos, *options), "other photos")


def test_info_only_looks_and_refuses_no_run(place):
    done = run_here("info", place.recipe, *place.options(), "--image-size", 48, "--json")
    assert done.returncode == 0, done.stderr


def test_run_does_all_stages(place, tmp_path):
    only = ("--set", "heads=[{type='GaussianNB'}]")
    done = run_cli("run", place.recipe, *place.options(tmp_path / "run"), *only, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["best"] == "GaussianNB"
    assert (tmp_path / "run" / "models" / "GaussianNB" / "model.json").is_file()


# ---- predict ---------------------------------------------------------------------------------------------


def test_predict_as_json_is_a_list_of_photos_and_nothing_else_is_printed(place):
    paths = [str(place.photos / name) for name in ("cat/001.png", "cat/broken.jpg", "dog/001.png")]
    done = run_cli("predict", place.run, *paths, "--json")
    assert done.returncode == 0, done.stderr
    predictions = json.loads(done.stdout)
    by_path = {one["path"]: one for one in predictions}
    assert set(by_path) == set(paths)
    broken = by_path.pop(paths[1])
    assert broken["label"] is None
    assert broken["reason"]
    for one in by_path.values():
        assert set(one) == {"path", "label", "probability", "probabilities", "novelty"}
        assert set(one["probabilities"]) == {"cat", "dog"}
        assert one["probability"] == one["probabilities"][one["label"]] == max(one["probabilities"].values())


def test_predict_as_csv_has_a_column_per_class(place, capfd):
    names = ("cat/001.png", "dog/001.png", "cat/broken.jpg")
    assert main(["predict", str(place.run), *(str(place.photos / name) for name in names), "--csv"]) == 0
    rows = list(csv.DictReader(capfd.readouterr().out.splitlines()))
    assert list(rows[0]) == ["path", "label", "probability", "cat", "dog", "novelty"]
    by_name = {str(Path(row["path"]).relative_to(place.photos)): row for row in rows}
    assert set(by_name) == set(names)
    assert float(by_name["dog/001.png"]["dog"]) + float(by_name["dog/001.png"]["cat"]) == pytest.approx(1)
    assert (by_name["cat/broken.jpg"]["label"], by_name["cat/broken.jpg"]["dog"]) == ("", "")


def test_predict_for_people_is_a_table_and_fails_only_if_no_photo_is_one(place, capfd, tmp_path):
    (tmp_path / "text.jpg").write_text("no photo")
    photo = place.photos / "dog" / "001.png"
    assert main(["predict", str(place.run), str(photo), str(tmp_path / "text.jpg")]) == 0
    table = capfd.readouterr().out
    assert str(photo) in table
    assert "not an image of a known format" in table
    assert main(["predict", str(place.run), str(tmp_path / "text.jpg")]) == 1
    assert "none of the photos could be decoded" in capfd.readouterr().err


def test_predict_shows_the_most_probable_classes(place, capfd):
    assert main(["predict", str(place.run), str(place.photos / "cat"), "--top", "1", "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capfd.readouterr().out)))
    assert list(rows[0]) == ["path", "label", "probability", "label_1", "probability_1", "novelty"]
    assert all(row["label"] == row["label_1"] for row in rows)


def test_predict_sorts_photos_into_folders_of_their_classes(place, tmp_path):
    words = ("predict", place.run, place.photos, "--sort-into", tmp_path / "sorted", "--json")
    done = run_cli(*words)
    assert done.returncode == 0, done.stderr
    said = [one for one in json.loads(done.stdout) if one["label"] is not None]
    assert done.stderr.splitlines()[-1] == (
        f"Sorted into {tmp_path / 'sorted'}: 24 linked, 1 without a class and not placed"
    )
    for one in said:
        folder = tmp_path / "sorted" / one["label"]
        assert any(path.samefile(one["path"]) for path in folder.iterdir())
    assert sum(path.is_file() for path in (tmp_path / "sorted").rglob("*")) == len(said) == 24


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--sort-into", "{photos}/sorted"), "choose a folder outside"),
        (("--sort-into", "{recipe}/sorted"), "is not a folder"),
        (("--grid", "{recipe}/grid.png"), "is not a folder"),
        (("--grid", "{folder}.png"), "is not a regular file"),
    ],
)
def test_a_place_for_results_that_cannot_be_is_found_before_the_work(
    place, tmp_path, monkeypatch, words, named
):
    monkeypatch.setattr("featcache.model.Model.load", lambda *_: pytest.fail("the model was loaded"))
    folder = tmp_path / "folder"
    folder.with_suffix(".png").mkdir()
    words = [word.format(photos=place.photos, recipe=place.recipe, folder=folder) for word in words]
    refused(run_here("predict", place.run, place.photos, *words), named)


def test_a_packed_file_or_an_export_that_cannot_be_written_is_found_before_the_work(place, monkeypatch):
    monkeypatch.setattr("featcache.store.packing.pack", lambda *_: pytest.fail("it was packed"))
    monkeypatch.setattr("featcache.exporting.stage.of_run", lambda *_: pytest.fail("photos were read"))
    wrong = place.recipe / "file"
    refused(run_here("pack", place.run / "features.h5", "-o", wrong), "is not a folder")
    refused(run_here("export", place.run, "--to", "keras", "-o", wrong), "is not a folder")


ENCODINGS = ({"PYTHONIOENCODING": "cp1252"}, {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"})


@pytest.mark.parametrize("environment", ENCODINGS, ids=lambda one: "-".join(one.values()))
@pytest.mark.parametrize("how", ["--json", "--csv", None])
def test_output_goes_through_any_encoding(place, tmp_path, environment, how):
    photo = next((place.photos / "cat").glob("*.png"))
    for name in (b"caf\xe9.png", "→ü🐈.png".encode(), b"z.png"):
        shutil.copy(photo, os.fsencode(tmp_path / "new") + b"-" + name)
    more = [how] if how else ["--sort-into", tmp_path.parent / "sorted"]
    assert run_in(environment, "predict", place.run, tmp_path, *more).count(b".png") == 3


def run_in(environment, *arguments):
    """Run a command with other encodings, and return what it printed as bytes."""
    command = [sys.executable, "-m", "featcache.cli", *map(str, arguments)]
    own = os.environ | {"PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"} | environment
    done = subprocess.run(command, env=own, capture_output=True, check=False)
    assert b"Traceback" not in done.stderr
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("environment", ENCODINGS, ids=lambda one: "-".join(one.values()))
def test_tables_go_through_any_encoding(place, environment):
    printed = run_in(environment, "heads", place.recipe, *place.options(), "--details")
    assert b"Best on validation" in printed
    assert b"true \\u2193 predicted \\u2192" in printed


def test_predict_draws_a_grid_of_the_photos(place, tmp_path, capfd):
    done = run_here("predict", place.run, place.photos, "--grid", tmp_path / "grid.png", "--wrong-first")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"Grid: {tmp_path / 'grid.png'}\n")
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.format == "PNG"
        assert min(grid.size) > 1000  # most of 24 photos, five in a row
    for_programs = ("predict", place.run, place.photos / "dog", "--grid", tmp_path / "again.png", "--csv")
    assert main(list(map(str, for_programs))) == 0
    assert (tmp_path / "again.png").exists()
    printed = capfd.readouterr()
    assert len(list(csv.reader(printed.out.splitlines()))) == 13
    assert "Grid: " in printed.err


@pytest.mark.parametrize("how", [(), ("--json",)], ids=["table", "json"])
def test_the_path_of_a_grid_is_printed_without_control_characters(place, tmp_path, how):
    photo, grid = place.photos / "dog" / "001.png", tmp_path / "\x1b]0;title\x07.png"
    done = run_cli("predict", place.run, photo, "--grid", grid, *how)
    assert done.returncode == 0, done.stderr
    assert "Grid: " in (done.stderr if how else done.stdout)
    assert "\x1b" not in done.stdout + done.stderr


def test_a_grid_that_is_no_png_is_refused_before_any_photo_is_looked_at(place, tmp_path):
    done = run_here("predict", place.run, tmp_path / "nothing", "--grid", tmp_path / "grid.pdf")
    refused(done, "grid.pdf does not end in .png", "grid.png")


def test_heads_draw_learning_curves_if_asked_to(place, tmp_path):
    done = run_here("heads", place.recipe, *place.options(tmp_path), "--plots")
    assert done.returncode == 0, done.stderr
    (curves,) = tmp_path.rglob("*.png")
    assert curves == tmp_path / "curves" / "linear.png"
    assert f"Learning curves: {curves}" in done.stdout


# ---- info, pack, sample ----------------------------------------------------------------------------------


def test_info_of_a_recipe_says_what_is_there_and_what_would_be_computed(place, tmp_path):
    photos = shutil.copytree(place.photos, tmp_path / "photos")
    make_photo(photos / "cat" / "new.png", seed=99_999)
    done, imported = run_watched("info", photos, *TINY, "--cache", place.cache, "--json")
    found = json.loads(done.stdout)
    assert not imported
    assert (found["in_store"], found["to_compute"]) == (24, 2), "the new one, and the broken one once more"
    assert found["classes"] == ["cat", "dog"]
    assert sum(found["photos"].values()) == 26
    assert found["feature_shape"] == [1280]
    assert found["base"].startswith("MobileNetV2-")


def test_info_of_a_recipe_whose_base_was_never_used_builds_no_network(place, tmp_path):
    done, imported = run_watched("info", place.photos, "--cache", tmp_path / "none", "--json")
    found = json.loads(done.stdout)
    assert not imported
    assert (found["in_store"], found["to_compute"]) == (0, 25)
    made = list((tmp_path / "none").iterdir()) if (tmp_path / "none").exists() else []
    assert all(path.name.startswith("photos.sqlite") for path in made), "only digests are kept"


def test_info_of_a_feature_file_and_of_a_model(place):
    done, imported = run_watched("info", place.run / "features.h5", "--json")
    found = json.loads(done.stdout)
    assert not imported
    assert found["kind"] == "feature file"
    assert sum(found["rows"].values()) == 24
    assert found["shape"]["train"] == [found["rows"]["train"], 1280]
    assert (found["classes"], found["skipped"]) == (["cat", "dog"], 1)
    done, imported = run_watched("info", place.run, "--json")
    found = json.loads(done.stdout)
    assert not imported
    assert found["model"] == str(place.run / "models" / place.result["best"])
    assert found["head"] == place.result["best"]
    assert found["scores"]["test"]["accuracy"] is not None


def test_info_for_people_prints_the_same_facts(place, capsys):
    assert main(["info", str(place.run / "features.h5")]) == 0
    printed = capsys.readouterr().out
    assert "feature file" in printed
    assert "cat, dog" in printed


def test_a_packed_file_holds_its_numbers_itself(place, tmp_path):
    done, imported = run_watched("pack", place.run / "features.h5", "-o", tmp_path / "one.h5")
    assert done.returncode == 0, done.stderr
    assert not imported
    assert str(tmp_path / "one.h5") in done.stdout
    aside = place.cache.rename(place.cache.with_name("aside"))
    try:
        with Features(tmp_path / "one.h5") as packed:
            assert packed.packed
            rows = {split: packed[split].load() for split in packed.splits}
            paths = {split: packed[split].paths for split in packed.splits}
    finally:
        aside.rename(place.cache)
    with Features(place.run / "features.h5") as features:
        for split in features.splits:
            assert paths[split] == features[split].paths
            for packed, virtual in zip(rows[split], features[split].load(), strict=True):
                assert np.array_equal(packed, virtual)


def test_sample_digits_are_photos_in_ten_class_folders(tmp_path):
    done, imported = run_watched("sample", "digits", tmp_path / "digits")
    assert done.returncode == 0, done.stderr
    assert not imported
    assert done.stdout.startswith("1,797 photos in ")
    assert sorted(path.name for path in (tmp_path / "digits").iterdir()) == list("0123456789")
    assert len(list((tmp_path / "digits").rglob("*.png"))) == 1797
    refused(run_cli("sample", "digits", tmp_path / "digits"), "choose another, or remove it")


def test_an_unknown_sample_is_refused(tmp_path):
    refused(run_cli("sample", "digit", tmp_path / "x"), "no sample is named 'digit'", "Did you mean 'digits'")
    assert not (tmp_path / "x").exists()


def test_the_package_is_imported_without_tensorflow():
    code = (
        "import sys, featcache as fc; fc.Recipe, fc.extract, fc.train_heads, fc.FeatureExtractor, fc.Model, "
        "fc.DenseHead; sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--set", "sweep.trials=8"], 8),
        (["--set", "sweep.trials=8", "--trials", "9"], 9),
        (["--trials", "9"], 9),
    ],
    ids=["--set alone", "both", "option alone"],
)
def test_an_option_that_is_not_given_leaves_set_alone(tmp_path, monkeypatch, words, expected):
    seen = []

    def run_sweep(recipe, reporter):
        seen.append(recipe)
        raise FeatcacheError("seen")

    monkeypatch.setattr("featcache.search.sweep.run_sweep", run_sweep)
    assert run_here("sweep", make_photos(tmp_path / "photos"), *words).returncode == 1
    assert seen[0].sweep.trials == expected


def test_set_reaches_the_settings_that_commands_have_options_for(tmp_path, monkeypatch):
    seen = []

    def stop(recipe, *_, **__):
        seen.append(recipe)
        raise FeatcacheError("seen")

    monkeypatch.setattr("featcache.training.train_heads", stop)
    monkeypatch.setattr("featcache.finetuning.stage.finetune", stop)
    photos = make_photos(tmp_path / "photos")
    run_here("heads", photos, "--set", "data.folds=3")
    run_here("finetune", photos, "--set", "finetune.unfreeze_from=100", "--set", "finetune.epochs=2")
    assert seen[0].data.folds == 3
    assert (seen[1].finetune.unfreeze_from, seen[1].finetune.epochs) == (100, 2)
