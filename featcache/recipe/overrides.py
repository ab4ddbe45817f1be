"""Overrides of a recipe by dotted key, ``base.image_size=96``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from featcache.errors import RecipeError, did_you_mean
from featcache.recipe.sections import DEFAULT_HEADS, DEFAULT_SPACE, HeadSettings


def parse_override(text: str) -> tuple[str, Any]:
    """Split ``key=value``; the value is parsed as TOML or, if that fails, kept as plain text.

    Raises
    ------
    RecipeError
        There is no ``=`` or no key.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise RecipeError(f"--set {text!r} is not KEY=VALUE; for example --set base.image_size=96")
    try:
        parsed = tomllib.loads(f"value = {value}")
        return key, parsed["value"] if len(parsed) == 1 else value.strip()
    except (ValueError, RecursionError):
        # not TOML, or numbers and nesting beyond Python's limits
        return key, value.strip()


def set_by_key(data: dict[str, Any], key: str, value: Any) -> None:
    """Set ``data["a"]["b"]`` for the key ``a.b``, creating tables.

    Members of lists are found by index or ``name``.

    Raises
    ------
    RecipeError
        A part of the key is not a table, or a list has no such member.
    """
    *parents, last = key.split(".")
    node: Any = data
    for depth, part in enumerate(parents):
        node = _step(node, part, ".".join(parents[: depth + 1]))
    if isinstance(node, list):
        raise RecipeError(f"--set {key}: name a setting of one member, for example {key}.C=0.1")
    if not isinstance(node, dict):
        raise RecipeError(f"--set {key}: {'.'.join(parents)} is no table")
    node[last] = value


# Overriding one setting of these must not drop the others.
_SAID_BY_DEFAULT: dict[str, Any] = {"heads": DEFAULT_HEADS, "sweep.space": DEFAULT_SPACE}


def _step(node: Any, part: str, key: str) -> Any:
    if isinstance(node, dict):
        if key in _SAID_BY_DEFAULT and part not in node:
            node[part] = plain_copy(_SAID_BY_DEFAULT[key])
        return node.setdefault(part, {})
    if isinstance(node, list):
        names = [_name_of(member) for member in node]
        positions = [str(number) for number in range(len(node))]
        if part in positions:
            return node[positions.index(part)]
        if part in names:
            return node[names.index(part)]
        raise RecipeError(
            f"--set {key}: no member {part!r}; there are {', '.join(names)}." + did_you_mean(part, names)
        )
    raise RecipeError(f"--set {key}: a value stands where a table is needed")


def _name_of(member: Any) -> str:
    """Return a list member's name in dotted keys; empty for an invalid head."""
    try:
        head = HeadSettings.model_validate(member)
    except ValidationError:
        return ""
    return head.name or head.default_name


def plain_copy(value: Any) -> Any:
    """Copy nested tables and lists to mutable dicts and lists."""
    if isinstance(value, Mapping):
        return {key: plain_copy(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [plain_copy(member) for member in value]
    return value
