"""What a search may try: drawing, grids, and what is refused before any photo is read."""

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from featcache.errors import RecipeError
from featcache.recipe import DEFAULT_SPACE, Recipe
from featcache.search.space import KIND, SearchSpace
from featcache.search.study import trials_in_total


def space_of(said, **sweep):
    recipe = Recipe.parse({"data": {"root": "photos"}, "sweep": {"space": said} | sweep})
    return SearchSpace(recipe.sweep.space)


def draw(space, seed=0):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    trial = study.ask()
    space.suggest(trial)
    return trial.params


LOGISTIC = {"type": "LogisticRegression", "C": {"low": 1e-3, "high": 10.0, "log": True}, "max_iter": 50}
DENSE = {"type": "dense", "units": [[], [8], [8, 4]], "dropout": [0.0, 0.5], "epochs": {"low": 2, "high": 4}}


def test_a_draw_becomes_the_settings_of_its_own_kind_of_head():
    space = space_of({"log": LOGISTIC, "dense": DENSE})
    kinds = set()
    for seed in range(30):
        params = draw(space, seed)
        head = space.settings(params)
        kinds.add(head.name)
        if head.name == "log":
            assert head.type == "LogisticRegression"
            assert set(params) == {KIND, "log.C"}
            assert 1e-3 <= head.parameters["C"] <= 10.0
            assert head.parameters["max_iter"] == 50
        else:
            assert set(params) == {KIND, "dense.units", "dense.dropout", "dense.epochs"}
            assert head.parameters["units"] in ([], [8], [8, 4])
            assert head.parameters["epochs"] in (2, 3, 4)
            assert isinstance(head.parameters["epochs"], int)
    assert kinds == {"log", "dense"}


scalars = st.one_of(st.integers(-5, 5), st.floats(-5, 5), st.sampled_from(["a", "b"]))
choices = st.lists(
    st.one_of(scalars, st.lists(st.integers(1, 9), max_size=2)), min_size=1, max_size=4, unique_by=repr
)


@given(choices)
@settings(max_examples=50, deadline=None)
def test_every_choice_comes_back_as_it_was_said(members):
    if any(member in members[:at] for at, member in enumerate(members)):
        return  # 1 and 1.0 are one choice, which is refused
    space = space_of({"x": {"type": "SVC", "value": members}})
    found = [space.settings(params).parameters["value"] for params in space.grid()]
    assert found == members
    assert list(map(type, found)) == list(map(type, members))
    assert space.size == len(members)


@given(st.integers(-50, 50), st.integers(0, 30), st.integers(1, 7))
@settings(max_examples=50, deadline=None)
def test_a_grid_has_all_numbers_of_a_range_and_optuna_takes_each(low, width, step):
    space = space_of({"x": {"type": "SVC", "a": {"low": low, "high": low + width, "step": step}}})
    grid = list(space.grid())
    assert [params["x.a"] for params in grid] == list(range(low, low + width + 1, step))
    for params in grid:
        trial = FixedTrial(params)
        space.suggest(trial)
        assert trial.params == params


def test_steps_of_a_tenth_reach_their_end():
    space = space_of({"x": {"type": "dense", "dropout": {"low": 0.0, "high": 0.35, "step": 0.1}}})
    assert [params["x.dropout"] for params in space.grid()] == [0.0, 0.1, 0.2, 0.3]
    assert all(draw(space, seed)["x.dropout"] in (0.0, 0.1, 0.2, 0.3) for seed in range(20))


def test_the_size_counts_kinds_together_and_is_none_for_a_continuum():
    assert space_of({"dense": DENSE, "nb": {"type": "GaussianNB"}}).size == 3 * 2 * 3 + 1
    assert space_of({"dense": DENSE, "log": LOGISTIC}).size is None


@pytest.mark.parametrize(
    ("said", "sampler", "trials", "total"),
    [
        ({"log": LOGISTIC}, "tpe", None, 50),
        ({"log": LOGISTIC}, "random", 7, 7),
        ({"dense": DENSE}, "tpe", None, 18),
        ({"dense": DENSE}, "grid", None, 18),
        ({"dense": DENSE}, "grid", 5, 5),
        ({"x": {"type": "SVC", "degree": {"low": 1, "high": 60}}}, "grid", None, 60),
        ({"x": {"type": "SVC", "degree": {"low": 1, "high": 60}}}, "tpe", None, 50),
    ],
)
def test_there_are_never_more_trials_than_different_heads(said, sampler, trials, total):
    assert trials_in_total(space_of(said), sampler, trials) == total


def test_a_grid_without_end_in_sight_is_refused():
    space = space_of({"x": {"type": "SVC", "degree": {"low": 1, "high": 20_000}}})
    with pytest.raises(RecipeError, match=r"20,000 different heads.*10,000"):
        trials_in_total(space, "grid", None)


# ---- what is refused -------------------------------------------------------------------------------------


def test_the_default_space_is_sound():
    space_of(DEFAULT_SPACE).check("log_loss")
    assert {space_of(DEFAULT_SPACE).settings(draw(space_of(DEFAULT_SPACE), s)).type for s in range(20)} == {
        "LogisticRegression",
        "dense",
    }


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"type": "LogisticRegresion"}, [r"sweep\.space\.x", "'LogisticRegresion'", "Did you mean"]),
        ({"type": "SVC", "Q": [1.0, 2.0]}, [r"sweep\.space\.x", "unknown key 'Q'", "SVC takes"]),
        ({"type": "SVC", "C": {"low": -1.0, "high": 1.0}}, [r"sweep\.space\.x", "'C'", "-1.0"]),
        ({"type": "SVC", "C": [1.0, "much"]}, [r"sweep\.space\.x", "'C'", "'much'"]),
        ({"type": "dense", "dropout": {"low": 0.0, "high": 1.0}}, ["'dropout'", "1.0"]),
        ({"type": "dense", "units": [[8], [0]]}, ["'units'", r"\[0\]"]),
        ({"type": "SVC", "pooling": ["avg", "mean"]}, [r"sweep\.space\.x", "pooling = 'mean'"]),
        ({"type": "VotingClassifier"}, [r"sweep\.space\.x", "other estimators"]),
    ],
)
def test_what_no_head_takes_is_refused_with_its_place(said, named):
    with pytest.raises(RecipeError) as caught:
        space_of({"x": said}).check("accuracy")
    for part in named:
        assert caught.match(part)


def test_a_value_that_goes_with_some_of_the_others_is_allowed():
    said = {"type": "dense", "optimizer": ["adam", "sgd"], "momentum": [0.0, 0.9]}
    space_of({"x": said}).check("accuracy")
    with pytest.raises(RecipeError, match="momentum"):
        space_of({"x": said | {"optimizer": ["adam"]}}).check("accuracy")


def test_heads_without_probabilities_cannot_be_searched_by_log_loss():
    space = space_of({"x": {"type": "LinearSVC", "C": [0.1, 1.0]}})
    space.check("accuracy")
    with pytest.raises(RecipeError, match=r"sweep\.space\.x.*LinearSVC has no probabilities"):
        space.check("log_loss")
