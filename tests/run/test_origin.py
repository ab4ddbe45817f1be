"""Results of other photos or of another base are replaced only if that is asked for."""

import json
import os

import pytest
from conftest import TINY_BASE

from featcache.bases.base import Base
from featcache.errors import RecipeError
from featcache.recipe import Recipe
from featcache.run.origin import check_origin, keep_origin
from featcache.store.base_store import Store


@pytest.fixture
def recipe_of(tmp_path, monkeypatch):
    """Return a function that makes a recipe with the run folder of this test."""
    monkeypatch.chdir(tmp_path)

    def make(data="photos", cache="cache", **base):
        given = data if isinstance(data, dict) else {"root": str(data)}
        return Recipe.parse({"data": given, "base": TINY_BASE | base, "run": "run", "cache": str(cache)})

    return make


def test_a_run_that_is_new_or_holds_the_same_is_free(recipe_of, tmp_path):
    check_origin(recipe_of())
    keep_origin(recipe_of(), "base-0123")
    check_origin(recipe_of())
    check_origin(recipe_of(tmp_path / "photos"))
    check_origin(recipe_of(batch_size=3, engine="tensorflow"))


def test_a_link_to_the_photos_and_the_working_directory_make_no_difference(recipe_of, tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    keep_origin(recipe_of(), "base-0123")
    (tmp_path / "link").symlink_to("photos")
    check_origin(recipe_of("link"))
    (tmp_path / "below").mkdir()
    monkeypatch.chdir("below")
    check_origin(recipe_of("../photos").model_copy(update={"run": tmp_path / "run"}))


@pytest.mark.parametrize("other", ["photos2", {"manifest": "photos"}, {"train": "photos", "test": "more"}])
def test_results_of_other_photos_are_not_replaced(recipe_of, other):
    keep_origin(recipe_of(), "base-0123")
    with pytest.raises(
        RecipeError, match=r"^run holds results of other photos: .*--run, .*--overwrite"
    ) as caught:
        check_origin(recipe_of(other))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "other", [{"image_size": 64}, {"name": "VGG16"}, {"pooling": "max"}, {"seed": 1}, {"layer": "Conv1"}]
)
def test_results_of_another_base_are_not_replaced(recipe_of, other):
    keep_origin(recipe_of(), "base-0123")
    with pytest.raises(RecipeError, match=f"run holds results of another base: of {next(iter(other))} = "):
        check_origin(recipe_of(**other))


def test_other_settings_that_mean_the_same_base_are_no_other_base(recipe_of, tmp_path, tiny_store):
    """Without a precision this base was resolved to f32 before; the store knows that."""
    asked = recipe_of(cache=tiny_store, precision="f32")
    spec = Base(asked.base, Store(tiny_store)).known_spec
    keep_origin(recipe_of(precision="auto"), spec.folder_name)
    check_origin(asked)
    with pytest.raises(RecipeError, match="precision = auto, and asked for is f32"):
        check_origin(recipe_of(cache=tmp_path / "empty", precision="f32"))


def test_a_setting_that_is_newer_than_the_run_has_its_default(recipe_of, tmp_path):
    keep_origin(recipe_of(), "base-0123")
    path = tmp_path / "run" / "origin.json"
    facts = json.loads(path.read_text())
    del facts["base"]["interpolation"]
    path.write_text(json.dumps(facts))
    check_origin(recipe_of())
    with pytest.raises(RecipeError, match="interpolation = bilinear, and asked for is nearest"):
        check_origin(recipe_of(interpolation="nearest"))


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"data": 1, "base": {}, "base_folder": ""}', '{"base": 3}']
)
def test_a_damaged_file_is_one_line(recipe_of, tmp_path, content):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "origin.json").write_text(content)
    with pytest.raises(RecipeError, match=r"it is not known what the run holds .*--overwrite"):
        check_origin(recipe_of())


def test_a_pipe_in_its_place_does_not_block(recipe_of, tmp_path):
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / "origin.json")
    with pytest.raises(RecipeError, match="it is not known what the run holds"):
        check_origin(recipe_of())
