"""What a recipe may say, what it says by default, and how a wrong one is refused."""

import contextlib
import datetime
import json
import math
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache.errors import RecipeError
from featcache.recipe import (
    DEFAULT_HEADS,
    DEFAULT_SPACE,
    BaseSettings,
    Range,
    Recipe,
    default_cache,
    parse_override,
)
from featcache.recipe.overrides import set_by_key

PHOTOS = {"data": {"root": "photos"}}


def parse(section=None, **overrides):
    """Parse a recipe of which only `section` is said."""
    return Recipe.parse(PHOTOS | (section or {}), overrides)


def refusal(section):
    with pytest.raises(RecipeError) as caught:
        parse(section)
    return str(caught.value)


# ---- what is said by default -----------------------------------------------------------------------------


def test_a_folder_needs_no_recipe(tmp_path):
    recipe = Recipe.load(tmp_path)
    assert recipe.data.root == tmp_path
    assert recipe.data.split.model_dump() == {"train": 0.8, "validation": 0.2, "test": 0.0}
    assert (recipe.base.name, recipe.base.weights, recipe.base.pooling) == ("MobileNetV2", "imagenet", "avg")
    assert recipe.base.image_size == (160, 160)
    assert (recipe.base.preprocessing, recipe.base.interpolation) == ("auto", "bilinear")
    names = ["LogisticRegression", "linear", "dense-256", "nearest-centroid", "nearest-neighbors"]
    assert [head.name for head in recipe.heads] == names
    assert recipe.heads[0].parameters == {}


def test_the_run_folder_is_named_after_the_source(tmp_path):
    (tmp_path / "birds.toml").write_text('[data]\nroot = "x"\n')
    (tmp_path / "birds.csv").write_text("path,label\n")
    assert Recipe.load(tmp_path / "birds.toml").run == Path("runs/birds")
    assert Recipe.load(tmp_path / "birds.csv").run == Path("runs/birds")
    assert Recipe.load(tmp_path).run == Path("runs") / tmp_path.name
    for name in ("pets.v1", "pets.toml", "pets.csv"):
        (tmp_path / name).mkdir()
        assert Recipe.load(tmp_path / name).run == Path("runs") / name, "the whole name of a folder"
    (tmp_path / "birds.v2.TOML").write_text('[data]\nroot = "x"\n')
    assert Recipe.load(tmp_path / "birds.v2.TOML").run == Path("runs/birds.v2")
    (tmp_path / "birds.toml").write_text('run = "elsewhere"\n[data]\nroot = "x"\n')
    assert Recipe.load(tmp_path / "birds.toml").run == Path("elsewhere")


def test_a_csv_file_is_a_manifest(tmp_path):
    (tmp_path / "list.CSV").write_text("path,label\n")
    recipe = Recipe.load(tmp_path / "list.CSV")
    assert (recipe.data.manifest, recipe.data.root) == (tmp_path / "list.CSV", None)


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("FEATCACHE_CACHE", str(tmp_path / "a"))
    assert default_cache() == parse().cache == tmp_path / "a"
    monkeypatch.delenv("FEATCACHE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert default_cache() == tmp_path / "b" / "featcache"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_cache() == tmp_path / "home" / ".cache" / "featcache"


@pytest.mark.parametrize("path", sorted((ROOT / "pipelines").glob("*.toml")), ids=lambda path: path.stem)
def test_the_recipes_of_the_package_load(path):
    recipe = Recipe.load(path)
    assert recipe.run == Path("runs") / path.stem, "two recipes would overwrite each other's results"
    said = tomllib.loads(path.read_text(encoding="utf-8"))
    assert recipe.base.name == said["base"]["name"]
    assert len(recipe.heads) == len(said["heads"])


def test_one_number_is_a_square_and_two_are_height_and_width():
    assert parse({"base": {"image_size": 96}}).base.image_size == (96, 96)
    assert parse({"base": {"image_size": [96, 128]}}).base.image_size == (96, 128)


def test_a_range_is_a_pair_of_numbers():
    settings = BaseSettings(range=[-1000, 400.5])
    assert settings.range == (-1000.0, 400.5)
    assert BaseSettings(**json.loads(settings.model_dump_json())) == settings


def test_a_recipe_written_as_json_reads_back_the_same():
    recipe = parse({"heads": [{"type": "SVC", "C": 2.0}, {"type": "dense", "units": [8, 4]}]})
    assert Recipe.parse(recipe.model_dump(mode="json")) == recipe


# ---- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "key", "nearest"),
    [
        ({"bsae": {}}, "bsae", "base"),
        ({"Seed": 3}, "Seed", "seed"),
        ({"data": {"rooot": "photos"}}, "data.rooot", "root"),
        ({"data": {"root": "p", "split": {"trian": 1.0}}}, "data.split.trian", "train"),
        ({"base": {"image-size": 96}}, "base.image-size", "image_size"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(section, key, nearest):
    message = refusal(section)
    assert f"unknown key {key!r}" in message
    assert f"Did you mean {nearest!r}" in message


def test_an_unknown_key_is_refused_with_all_that_are_known():
    assert "data.split takes train, validation, test" in refusal(
        {"data": {"root": "p", "split": {"xyz": 1.0}}}
    )


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"base": {"pooling": "mean"}}, ["base.pooling = 'mean'", "'none', 'avg' or 'max'"]),
        ({"base": {"resize": "fit"}}, ["base.resize = 'fit'", "'stretch', 'crop' or 'pad'"]),
        ({"base": {"range": "max"}}, ["base.range = 'max'", '"minmax" or [low, high]']),
        ({"base": {"range": [9, 9]}}, ["base.range", "low below high", "[9, 9]"]),
        ({"base": {"range": [1, 2, 3]}}, ["base.range", "[1, 2, 3]"]),
        ({"base": {"range": ["0", "9"]}}, ["base.range", "['0', '9']"]),
        ({"base": {"range": [0, float("inf")]}}, ["base.range", "[0, inf]"]),
        ({"base": {"range": 4095}}, ["base.range = 4095", "[low, high]"]),
        ({"base": {"color_profile": "srgb"}}, ["base.color_profile = 'srgb'", "'convert' or 'ignore'"]),
        ({"base": {"max_pixels": 0}}, ["base.max_pixels = 0"]),
        ({"base": {"max_pixels": 1e9}}, ["base.max_pixels"]),
        ({"base": {"interpolation": "cubic"}}, ["base.interpolation = 'cubic'", "'bicubic'"]),
        ({"base": {"preprocessing": "caffe"}}, ["base.preprocessing = 'caffe'", "'auto'"]),
        ({"base": {"image_size": 7}}, ["base.image_size", "7", "greater than or equal to 8"]),
        ({"base": {"image_size": [96, 5000]}}, ["base.image_size.1 = 5000", "less than or equal to 4096"]),
        ({"base": {"image_size": "96"}}, ["base.image_size = '96'"]),
        ({"base": {"image_size": [1, 2, 3]}}, ["base.image_size", "3"]),
        ({"base": {"name": 16}}, ["base.name = 16", "string"]),
        ({"base": {"batch_size": 0}}, ["base.batch_size = 0", "greater than or equal to 1"]),
        ({"base": 3}, ["base = 3"]),
        ({"seed": -1}, ["seed = -1", "greater than or equal to 0"]),
        ({"seed": 1.5}, ["seed = 1.5", "integer"]),
        ({"data": {"root": 5}}, ["data.root = 5", "path"]),
        ({"data": {"root": "p", "split": {"train": 1.2}}}, ["data.split.train = 1.2", "equal to 1"]),
        ({"data": {"root": "p", "split": {"train": math.nan}}}, ["data.split.train = nan"]),
        ({"data": {"root": "p", "split": {"train": 0.5}}}, ["data.split", "0.7", "add up to 1"]),
        ({"data": {"root": "p", "split": {"train": 0, "validation": 1}}}, ["data.split", "train is 0"]),
        ({"data": {"root": "p", "validation_from_train": 1}}, ["validation_from_train = 1", "less than 1"]),
        ({"data": {"root": "p", "train": "q"}}, ["data", "exactly one", "root and train"]),
        ({"data": {"root": "p", "manifest": "q"}}, ["data", "exactly one", "root and manifest"]),
        ({"data": {}}, ["data", "exactly one of root, manifest or train", "none"]),
        ({"data": {"root": "p", "test": "q"}}, ["data", "train = FOLDER"]),
        ({"heads": []}, ["heads", "at least 1"]),
        ({"heads": [{"C": 1.0}]}, ["heads.0.type is missing"]),
        ({"heads": ["SVC"]}, ["heads.0 = 'SVC'"]),
        ({"heads": [{"type": "SVC"}, {"type": "SVC", "pooling": "mean"}]}, ["heads.1.pooling = 'mean'"]),
        ({"heads": [{"type": "SVC", "scale": "often"}]}, ["heads.0.scale", "'often'"]),
        ({"augment": {"rotate": 0.2}}, ["unknown key 'augment.rotate'", "'rotation'", "augment takes views"]),
        ({"augment": {"flip": True, "views": 0}}, ["augment.views = 0", "greater than or equal to 1"]),
        ({"augment": {"flip": 1}}, ["augment.flip = 1", "boolean"]),
        ({"augment": {"rotation": 72}}, ["augment.rotation = 72", "less than or equal to 0.5"]),
        ({"augment": {"crop": [0.6]}}, ["augment.crop.1 is missing"]),
        ({"augment": {"crop": [1.0, 0.6]}}, ["augment", "crop = [1, 0.6]", "[0.6, 1.0]"]),
        ({"augment": {"crop": [0, 1]}}, ["augment", "crop = [0, 1]", "above 0"]),
        ({"augment": {"contrast": 1.5}}, ["augment.contrast = 1.5", "less than or equal to 1"]),
        ({"augment": {"views": 4}}, ["augment", "nothing to vary", "flip = true", "leave [augment] out"]),
        ({"augment": {"crop": [1, 1], "rotation": 0}}, ["augment", "nothing to vary"]),
        ({"finetune": {"unfreez_from": 3}}, ["unknown key", "'unfreeze_from'", "finetune takes from_layer"]),
    ],
)
def test_a_wrong_value_is_refused_with_key_value_and_what_is_allowed(section, named):
    message = refusal(section)
    for part in named:
        assert part in message


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({"seed": "7"}, "seed"),
        ({"seed": True}, "seed"),
        ({"base": {"batch_size": "32"}}, "base.batch_size"),
        ({"base": {"batch_size": True}}, "base.batch_size"),
        ({"base": {"image_size": True}}, "base.image_size"),
        ({"base": {"image_size": ["96", "96"]}}, "base.image_size.0"),
        ({"data": {"root": "p", "strict": "no"}}, "data.strict"),
        ({"data": {"root": "p", "strict": 1}}, "data.strict"),
        ({"data": {"root": "p", "test_from_validation": "0.5"}}, "data.test_from_validation"),
    ],
)
def test_a_value_of_another_type_is_never_bent_into_shape(section, key):
    assert key in refusal(section)


def test_a_whole_number_may_stand_for_a_real_one():
    assert parse({"data": {"root": "p", "split": {"train": 1, "validation": 0}}}).data.split.train == 1.0


def test_augmentation_is_there_only_if_it_is_said():
    assert Recipe.parse({"data": {"root": "p"}}).augment is None
    augment = Recipe.parse({"data": {"root": "p"}}, {"augment.crop": [0.6, 1]}).augment
    assert augment is not None
    assert (augment.views, augment.flip, augment.crop) == (8, False, (0.6, 1.0))


def test_the_message_names_the_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[data]\nroot = "photos"\n[base]\nnmae = "VGG16"\n')
    with pytest.raises(RecipeError, match=r"mine\.toml: unknown key 'base\.nmae'"):
        Recipe.load(path)


def test_a_missing_data_section_is_named():
    with pytest.raises(RecipeError, match="data is missing"):
        Recipe.parse({})


NOT_TOML = {
    "bracket": b"[data\nroot = 1",
    "equals": b"root == 1",
    "photo": b"\xff\xd8\xff\xe0",
    "twice": b"a = 1\na = 2\n",
    "lists": b"a = " + b"[" * 5000,
    "digits": b"a = " + b"9" * 5000,
}


@pytest.mark.parametrize("text", NOT_TOML.values(), ids=NOT_TOML)
def test_what_is_not_toml_is_refused_with_its_name(tmp_path, text):
    path = tmp_path / "bad.toml"
    path.write_bytes(text)
    with pytest.raises(RecipeError, match=r"bad\.toml is not a TOML recipe"):
        Recipe.load(path)


def test_a_missing_source_says_what_may_be_given(tmp_path):
    with pytest.raises(RecipeError, match="does not exist; give a TOML recipe, a folder"):
        Recipe.load(tmp_path / "nothing")


# ---- overrides -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("base.image_size=96", ("base.image_size", 96)),
        ("base.image_size = [96, 128]", ("base.image_size", [96, 128])),
        ("base.arguments={alpha=0.35}", ("base.arguments", {"alpha": 0.35})),
        ("heads.0.learning_rate=1e-4", ("heads.0.learning_rate", 1e-4)),
        ("data.strict=true", ("data.strict", True)),
        ("base.name=VGG16", ("base.name", "VGG16")),
        ('base.name="VGG16"', ("base.name", "VGG16")),
        ("data.root=my photos/a=b", ("data.root", "my photos/a=b")),
        ("data.root=/data/2024-01-01", ("data.root", "/data/2024-01-01")),
        ("base.layer=", ("base.layer", "")),
    ],
)
def test_the_value_of_an_override_is_toml_or_plain_text(text, expected):
    assert parse_override(text) == expected


@pytest.mark.parametrize("text", ["", "=", "=96", "  =96", "base.image_size"])
def test_an_override_without_key_or_equals_sign_is_refused(text):
    with pytest.raises(RecipeError, match=r"is not KEY=VALUE; for example --set base\.image_size=96"):
        parse_override(text)


@pytest.mark.parametrize("value", ["[" * 5000, "{a=" * 5000, "9" * 5000], ids=["lists", "tables", "digits"])
def test_a_monstrous_value_is_text_or_refused(value):
    with contextlib.suppress(RecipeError):
        assert parse_override(f"base.name={value}") == ("base.name", value)


@settings(deadline=None)
@given(st.text() | st.text("=.\"'[]{}, \n\t#0123456789abeE+-_:TZ").map(lambda text: f"key={text}"))
def test_any_text_is_an_override_or_refused(text):
    try:
        key, _ = parse_override(text)
    except RecipeError:
        return
    assert key
    assert text.startswith(key) or text.strip().startswith(key)


def test_dotted_keys_make_tables_on_the_way():
    data = {"base": {"name": "VGG16"}}
    set_by_key(data, "base.image_size", 96)
    set_by_key(data, "base.arguments.alpha", 0.35)
    set_by_key(data, "seed", 3)
    assert data == {
        "base": {"name": "VGG16", "image_size": 96, "arguments": {"alpha": 0.35}},
        "seed": 3,
    }


def test_heads_are_reached_by_index_by_name_and_by_default_name():
    heads = [{"type": "SVC"}, {"type": "dense", "units": [8]}, {"type": "SVC", "name": "wide"}]
    changed = Recipe.parse(
        PHOTOS | {"heads": heads},
        {"heads.0.C": 5.0, "heads.dense-8.epochs": 3, "heads.wide.gamma": 0.1},
    )
    assert changed.heads[0].parameters == {"C": 5.0}
    assert changed.heads[1].parameters == {"units": [8], "epochs": 3}
    assert changed.heads[2].parameters == {"gamma": 0.1}
    assert heads[0] == {"type": "SVC"}, "what came in stays as it was"


def test_the_default_heads_can_be_changed_too_and_stay_as_they_are():
    changed = {"heads.dense-256.epochs": 3, "heads.LogisticRegression.C": 0.1}
    changed |= {"heads.nearest-neighbors.n_neighbors": 5}
    recipe = parse(None, **changed)
    assert recipe.heads[0].parameters == {"C": 0.1}
    assert recipe.heads[2].parameters["epochs"] == 3
    assert recipe.heads[4].parameters == {"n_neighbors": 5}
    assert len(recipe.heads) == 5
    assert parse().heads[2].parameters["epochs"] == DEFAULT_HEADS[2]["epochs"] == 50


def test_an_unknown_head_is_refused_with_the_nearest():
    with pytest.raises(
        RecipeError, match=r"no member 'LogisticRegresion'.*Did you mean 'LogisticRegression'\?"
    ):
        parse(None, **{"heads.LogisticRegresion.C": 3})


@pytest.mark.parametrize(
    "key", ["base.name.x", "base.image_size.0", "heads.0", "heads.LogisticRegression", "seed.a.b"]
)
def test_a_key_that_leads_nowhere_is_refused(key):
    with pytest.raises(RecipeError):
        Recipe.parse(PHOTOS | {"base": {"name": "VGG16", "image_size": [96, 96]}, "seed": 1}, {key: 3})


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({"base": {"image_size": [96, 96]}}, "base.image_size.first.x"),
        ({"heads": ["SVC"]}, "heads.SVC.C"),
        ({"heads": [{}]}, "heads.SVC.C"),
        ({"heads": [{"type": 5}]}, "heads.SVC.C"),
        ({"heads": [{"type": "SVC", "name": 5}]}, "heads.linear.C"),
        ({}, "heads.².C"),
    ],
)
def test_an_override_of_a_recipe_that_is_wrong_itself_is_refused(section, key):
    with pytest.raises(RecipeError):
        Recipe.parse(PHOTOS | section, {key: 3})


def test_an_override_that_is_none_changes_nothing():
    assert parse(None, **{"base.image_size": None}) == parse()


def test_an_override_may_be_zero_or_false():
    said = {"seed": 3, "data": {"root": "photos", "strict": True}}
    recipe = Recipe.parse(said, {"seed": 0, "data.strict": False})
    assert (recipe.seed, recipe.data.strict) == (0, False)


def test_overrides_are_checked_like_the_rest():
    with pytest.raises(RecipeError, match=r"base\.image_size.* = 3"):
        parse(None, **{"base.image_size": 3})


# ---- whatever comes in -----------------------------------------------------------------------------------

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["dense", "SVC", "avg", "auto", "photos"])
    | st.dates()
    | st.just(datetime.time(7))
    | st.datetimes()
)
KNOWN = (
    *("data", "base", "heads", "cache", "run", "seed", "root", "manifest", "train", "validation", "test"),
    *("split", "strict", "name", "type", "pooling", "scale", "arguments", "weights", "layer", "image_size"),
    *("resize", "batch_size", "units", "C", "class_weight", "model_config"),
)
KEYS = st.text(max_size=6) | st.sampled_from(KNOWN)


def nested(leaves):
    return st.lists(leaves, max_size=3) | st.dictionaries(KEYS, leaves, max_size=4)


TREES = st.recursive(SCALARS, nested, max_leaves=12)
SECTIONS = st.fixed_dictionaries(
    {"data": st.just({"root": "photos"}) | st.dictionaries(KEYS, TREES, max_size=3)},
    optional={
        "base": st.dictionaries(KEYS, TREES, max_size=4) | TREES,
        "heads": st.lists(st.dictionaries(KEYS, TREES, max_size=4) | TREES, max_size=3) | TREES,
        "seed": SCALARS,
        "run": SCALARS,
    },
)


@settings(max_examples=300, deadline=None)
@given(SECTIONS | st.dictionaries(KEYS, TREES, max_size=4))
def test_any_data_is_a_recipe_or_refused(raw):
    try:
        recipe = Recipe.parse(raw)
    except RecipeError:
        return
    names = [head.name for head in recipe.heads]
    assert all(names)
    assert len(set(names)) == len(names)


@settings(max_examples=300, deadline=None)
@given(
    SECTIONS,
    st.lists(KEYS | st.text("01²-", max_size=2), min_size=1, max_size=3).flatmap(
        lambda parts: st.sampled_from(["", "heads.", "base."]).map(lambda table: table + ".".join(parts))
    ),
    TREES,
)
def test_any_override_of_any_data_is_taken_or_refused(raw, key, value):
    with contextlib.suppress(RecipeError):
        assert isinstance(Recipe.parse(raw, {key: value}), Recipe)


# ---- the heads' names ------------------------------------------------------------------------------------


def names(*heads):
    return [head.name for head in parse({"heads": list(heads)}).heads]


def test_heads_without_a_name_get_one_of_their_own():
    assert names({"type": "SVC"}, {"type": "SVC"}, {"type": "SVC"}) == ["SVC", "SVC-2", "SVC-3"]
    assert names({"type": "dense"}, {"type": "dense", "units": [64, 8]}, {"type": "dense", "units": 64}) == [
        "linear",
        "dense-64-8",
        "dense-64",
    ]


def test_a_given_name_is_never_given_to_another():
    assert names({"type": "SVC"}, {"type": "LogisticRegression", "name": "SVC"}) == ["SVC-2", "SVC"]
    assert names({"type": "SVC"}, {"type": "SVC"}, {"type": "SVC", "name": "SVC-2"}) == [
        "SVC",
        "SVC-3",
        "SVC-2",
    ]


def test_two_heads_with_one_name_are_refused():
    two = [{"type": "SVC", "name": "best"}, {"type": "dense", "name": "best"}]
    assert "two heads are named 'best'" in refusal({"heads": two})


def test_names_that_differ_only_in_case_are_refused():
    two = [{"type": "SVC", "name": "Best"}, {"type": "dense", "name": "best"}]
    assert "'Best' and 'best' differ only in case" in refusal({"heads": two})
    heads = Recipe.parse(
        {"data": {"root": "d"}, "heads": [{"type": "SVC", "name": "svc"}, {"type": "SVC"}]}
    ).heads
    assert [head.name for head in heads] == ["svc", "SVC-2"]


@pytest.mark.parametrize(
    ("name", "stage"), [("finetuned", "finetune"), ("Finetuned", "finetune"), ("sweep-best", "sweep")]
)
def test_names_of_models_that_other_stages_write_are_reserved(name, stage):
    assert f"{name!r} is reserved for the model that `featcache {stage}` writes" in refusal(
        {"heads": [{"type": "SVC", "name": name}]}
    )


@pytest.mark.parametrize(
    "name",
    [
        *("a/b", "..", "../x", ".hidden", "a b", "a\x00", "a\\b", "--"),
        *("end.", "con", "NUL", "aux.txt", "com1", "Lpt9.x", "x" * 101, "é" * 51, "a\n"),
    ],
)
def test_a_name_that_is_no_folders_name_is_refused(name):
    assert "head name" in refusal({"heads": [{"type": "SVC", "name": name}]})


def test_with_heads_keeps_the_named_ones_in_the_recipes_order():
    recipe = parse()
    kept = recipe.with_heads(["dense-256", "LogisticRegression"]).heads
    assert [head.name for head in kept] == ["LogisticRegression", "dense-256"]
    assert len(recipe.heads) == 5
    with pytest.raises(
        RecipeError, match=r"no head is named 'LogisticRegresion'.*Did you mean 'LogisticRegression'\?"
    ):
        recipe.with_heads(["LogisticRegression", "LogisticRegresion"])


# ---- what a sweep may say --------------------------------------------------------------------------------

LOGISTIC = {"type": "LogisticRegression"}


def sweep_of(**section):
    return parse({"sweep": section}).sweep


def test_a_sweep_needs_no_section():
    sweep = parse().sweep
    assert (sweep.trials, sweep.metric, sweep.sampler, sweep.timeout) == (None, None, "tpe", None)
    assert parse().sweep_metric == "log_loss"
    assert parse({"selection": {"metric": "macro_f1"}}).sweep_metric == "macro_f1"
    assert list(sweep.space) == list(DEFAULT_SPACE)
    assert sweep.space["logistic"].parameters["C"] == Range(low=1e-4, high=10.0, log=True)


def test_overriding_one_range_of_the_default_space_keeps_the_others():
    sweep = parse(**{"sweep.space.logistic.C": [0.1, 1.0]}).sweep
    assert list(sweep.space) == list(DEFAULT_SPACE)
    assert sweep.space["logistic"].parameters == {"C": [0.1, 1.0], "max_iter": 1000}
    assert DEFAULT_SPACE["logistic"]["C"] != [0.1, 1.0]


def test_tables_are_ranges_where_they_look_like_one_and_values_where_not():
    weights = {"cat": 1.0, "dog": 2.0}
    said = {"C": {"low": 1, "high": 9, "step": 2}, "class_weight": weights, "kernel": ["rbf", "linear"]}
    kind = sweep_of(space={"svm": {"type": "SVC", **said}}).space["svm"]
    assert kind.type == "SVC"
    assert kind.parameters == said | {"C": Range(low=1, high=9, step=2)}
    assert list(kind.parameters["C"].values) == [1, 3, 5, 7, 9]


@given(low=st.integers(-99, 99), width=st.integers(0, 99), step=st.none() | st.integers(1, 9))
@settings(max_examples=50, deadline=None)
def test_a_sweep_written_as_json_reads_back_the_same(low, width, step):
    numbers = {"low": low, "high": low + width, "step": step}
    recipe = parse({"sweep": {"space": {"x": {**LOGISTIC, "C": numbers, "l": [[], [1]]}}, "trials": 3}})
    assert Recipe.parse(recipe.model_dump(mode="json")) == recipe
    values = recipe.sweep.space["x"].parameters["C"].values
    assert all(isinstance(value, int) for value in values)
    assert (values[0], len(values)) == (low, width // (step or 1) + 1)


def test_a_range_is_of_whole_numbers_only_when_all_of_it_is():
    assert Range(low=1, high=5).is_whole
    for numbers in ({"low": 1.0, "high": 5}, {"low": 1, "high": 5.0}, {"low": 1, "high": 5, "step": 0.5}):
        assert not Range(**numbers).is_whole
    assert Range(low=0, high=1, step=0.25).values == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert Range(low=0.0, high=1.0).values is None


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"trails": 3}, ["unknown key 'sweep.trails'", "'trials'", "sweep takes"]),
        ({"trials": 0}, ["sweep.trials = 0", "greater than or equal to 1"]),
        ({"trials": 2.5}, ["sweep.trials = 2.5", "integer"]),
        ({"metric": "auc"}, ["sweep.metric = 'auc'", "'roc_auc'"]),
        ({"sampler": "bayes"}, ["sweep.sampler = 'bayes'", "'tpe', 'random' or 'grid'"]),
        ({"timeout": 0}, ["sweep.timeout = 0", "greater than 0"]),
        ({"space": {}}, ["sweep.space", "at least 1"]),
        ({"space": {"x": {"C": 1.0}}}, ["sweep.space.x.type is missing"]),
        ({"space": {"a/b": LOGISTIC}}, ["sweep", "'a/b'", "letters"]),
        ({"space": {"x": {**LOGISTIC, "name": "y"}}}, ["sweep.space.x", "name is no parameter"]),
        ({"space": {"x": {**LOGISTIC, "calibrate": "temperature"}}}, ["sweep.space.x", "calibrate is no"]),
        ({"space": {"x": {**LOGISTIC, "C": [1, 2, 1]}}}, ["sweep.space.x", "C = [1, 2, 1]", "1 twice"]),
        (
            {"sampler": "grid", "space": {"x": {**LOGISTIC, "C": {"low": 0.1, "high": 1.0}}}},
            ["sweep", "'grid'", "space.x.C", "low = 0.1", "step or a list"],
        ),
    ],
)
def test_a_wrong_sweep_is_refused_with_key_value_and_what_is_allowed(section, named):
    message = refusal({"sweep": section})
    for part in named:
        assert part in message


@pytest.mark.parametrize(
    ("numbers", "named"),
    [
        ({"low": 3, "high": 1}, ["low = 3", "above high = 1"]),
        ({"low": 0.0, "high": 1.0, "log": True}, ["low = 0.0", "log = true", "above 0"]),
        ({"low": 1, "high": 9, "log": True, "step": 2}, ["step = 2", "log = true"]),
        ({"low": 0, "high": 1, "step": 0}, ["step = 0", "greater than 0"]),
        ({"low": 0.0, "high": 1.0, "step": 1e-9}, ["step = 1e-09", "greater one"]),
        ({"low": 1}, ["high is missing"]),
        ({"low": 1, "hihg": 2}, ["'hihg'", "low, high, log, step"]),
        ({"low": 1, "high": "ten"}, ["high = 'ten'", "number"]),
        ({"low": True, "high": 2}, ["low = True", "number"]),
        ({"low": 1.0, "high": math.inf}, ["high = inf"]),
    ],
)
def test_a_range_that_cannot_be_is_refused_with_its_place(numbers, named):
    message = refusal({"sweep": {"space": {"x": {**LOGISTIC, "C": numbers}}}})
    for part in ["sweep.space.x.C", *named]:
        assert part in message


@pytest.mark.parametrize(("key", "value"), [("from_layer", "block_11"), ("unfreeze_from", 7)])
def test_overriding_where_fine_tuning_starts_replaces_what_the_recipe_says(key, value):
    for said in ({"from_layer": "block_3"}, {"unfreeze_from": 100}):
        recipe = Recipe.parse({"data": {"root": "photos"}, "finetune": said}, {f"finetune.{key}": value})
        settings = recipe.finetune.model_dump(include={"from_layer", "unfreeze_from"}, exclude_none=True)
        assert settings == {key: value}


@pytest.mark.parametrize("key", ["cache", "run", "data.root"])
def test_a_path_with_a_nul_character_is_invalid(key):
    with pytest.raises(RecipeError, match=rf"{key} = .*must not contain NUL"):
        Recipe.parse(PHOTOS, {key: "a\0b"})
