"""docs/heads.md lists every key of featcache's own heads, with its true default."""

import inspect
import pkgutil
import re
import tomllib
from pathlib import Path

import pytest

from featcache.heads.estimators import OWN_TYPES
from featcache.recipe import DEFAULT_HEADS, HeadSettings

PAGE = (Path(__file__).parents[2] / "docs" / "heads.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))


def keys_of(section):
    """Return the table's keys and their defaults as they are written."""
    return dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", SECTIONS.get(section, ""), re.MULTILINE))


def written(default):
    """Return the value of a default in the table."""
    if not default.startswith("`"):
        return None
    return tomllib.loads(f"value = {default.strip('`')}")["value"]


@pytest.mark.parametrize("kind", OWN_TYPES)
def test_the_tables_have_all_keys_of_a_type_and_their_defaults(kind):
    parameters = inspect.signature(pkgutil.resolve_name(OWN_TYPES[kind])).parameters
    own = {key: one.default for key, one in parameters.items() if key not in HeadSettings.model_fields}
    table = keys_of(f'type = "{kind}"')
    assert set(table) == set(own)
    for key, default in own.items():
        assert written(table[key]) == (list(default) if isinstance(default, tuple) else default), key


def test_the_table_of_all_heads_has_the_keys_of_a_recipe():
    table = keys_of("Keys of all heads")
    assert set(table) == set(HeadSettings.model_fields)
    for key in ("pooling", "pca", "scale", "calibrate"):
        assert written(table[key]) == HeadSettings.model_fields[key].default


def test_the_default_heads_are_listed():
    heads = [HeadSettings.model_validate(one) for one in DEFAULT_HEADS]
    first = PAGE.partition("## ")[0]
    assert re.findall(r"^\| `([\w-]+)`", first, re.MULTILINE) == [
        head.name or head.default_name for head in heads
    ]
    dense = next(head for head in heads if head.default_name == "dense-256")
    assert f"`dropout = {dense.parameters['dropout']}`, `epochs = {dense.parameters['epochs']}`" in first
