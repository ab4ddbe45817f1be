"""``origin.json``: of which photos and which base a run holds the results, so that no others replace them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from featcache.bases.base import Base
from featcache.bases.spec import files_of
from featcache.errors import RecipeError
from featcache.files import read_regular, write_bytes_whole
from featcache.recipe import BaseSettings, Recipe
from featcache.run.layout import ORIGIN_FILE
from featcache.store.base_store import Store

_LARGEST = 1 << 20

_SOURCES = ("root", "manifest", "train", "validation", "test")

# They change how fast features are computed, and not the features.
_WITHOUT_EFFECT = ("engine", "batch_size")


@dataclass(frozen=True)
class Origin:
    """What the results of a run were made from.

    Attributes
    ----------
    data : dict of str to str
        The recipe's keys that say where the photos are, and their absolute paths.
    base : dict
        The settings of the base as JSON-ready data, files by their absolute paths.
    base_folder : str
        Name of the base's folder in the store.
    """

    data: dict[str, str]
    base: dict[str, Any]
    base_folder: str

    @classmethod
    def of(cls, recipe: Recipe, base_folder: str) -> Origin:
        """Return what a recipe's results are made from."""
        given = {key: getattr(recipe.data, key) for key in _SOURCES}
        data = {key: os.path.realpath(path) for key, path in given.items() if path is not None}
        return cls(data, _comparable(recipe.base), base_folder)

    def to_json(self) -> dict[str, Any]:
        """Return the origin as JSON-ready data."""
        return {"data": self.data, "base": self.base, "base_folder": self.base_folder}


def _comparable(settings: BaseSettings) -> dict[str, Any]:
    facts = settings.model_dump(mode="json", exclude=set(_WITHOUT_EFFECT))
    return facts | {key: os.path.realpath(path) for key, path in files_of(settings).items()}


def keep_origin(recipe: Recipe, base_folder: str) -> None:
    """Write what the recipe's results are made from into its run.

    Raises
    ------
    StoreError
        No room or no permission.
    """
    text = json.dumps(Origin.of(recipe, base_folder).to_json(), indent=1) + "\n"
    write_bytes_whole(recipe.run / ORIGIN_FILE, text.encode())


def check_origin(recipe: Recipe) -> None:
    """Make sure that a recipe's results replace none of other photos or of another base.

    Photos that were added, removed or relabelled, another split and other heads make no difference. Runs of
    earlier versions do not say what they were made from, and pass.

    Raises
    ------
    RecipeError
        The run holds results of other photos or of another base, or its ``origin.json`` is damaged.
    """
    path = recipe.run / ORIGIN_FILE
    ways = "choose another folder with --run, or replace these results with --overwrite"
    try:
        held = _parsed(json.loads(read_regular(path, _LARGEST)))
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RecipeError(
            f"{path} cannot be read, so it is not known what the run holds ({type(error).__name__}); {ways}"
        ) from None
    asked = Origin.of(recipe, "")
    if held.data != asked.data:
        raise RecipeError(
            f"{recipe.run} holds results of other photos: of {_where(held)}, and asked for are those of "
            f"{_where(asked)}; {ways}"
        )
    if held.base != asked.base and held.base_folder != _known_folder(recipe):
        raise RecipeError(
            f"{recipe.run} holds results of another base: of {_differences(held, asked)}; {ways}"
        )


def _parsed(facts: Any) -> Origin:
    data, base = facts["data"], facts["base"]
    try:
        # settings that an earlier version did not have get the values of their defaults
        settings = BaseSettings.model_validate(base)
    except ValidationError as error:
        raise ValueError(str(error)) from None
    return Origin(
        {str(key): str(path) for key, path in data.items()}, _comparable(settings), str(facts["base_folder"])
    )


def _known_folder(recipe: Recipe) -> str | None:
    """Return the base's folder in the store, if that is known without building a network.

    Other settings can mean the same base: a precision that was chosen before, or the last layer by its name.
    """
    spec = Base(recipe.base, Store(recipe.cache)).known_spec
    return None if spec is None else spec.folder_name


def _where(origin: Origin) -> str:
    return " and ".join(origin.data.values())


def _differences(held: Origin, asked: Origin) -> str:
    """Name the settings that differ: "image_size = [96, 96], and asked for is [160, 160]"."""
    changed = [key for key in asked.base if held.base.get(key) != asked.base[key]]
    return "; ".join(f"{key} = {held.base[key]}, and asked for is {asked.base[key]}" for key in changed)
