"""A whole recipe: read from TOML, overridden by dotted key, validated.

A recipe is plain data: nothing here touches photos, networks or the store.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from featcache.errors import RecipeError, did_you_mean
from featcache.files import read_regular
from featcache.recipe.messages import explain
from featcache.recipe.names import check_head_name
from featcache.recipe.overrides import plain_copy, set_by_key
from featcache.recipe.sections import (
    DEFAULT_HEADS,
    AugmentSettings,
    BaseSettings,
    DataSettings,
    FinetuneSettings,
    HeadSettings,
    Metric,
    PlainPath,
    Section,
    Seed,
    SelectionSettings,
    SweepSettings,
)

# A recipe is a page of text; more is another file.
_LARGEST_RECIPE = 4 << 20
# Characters of a path that an error repeats.
_LONGEST_NAME = 200

_EITHER = {"finetune.from_layer", "finetune.unfreeze_from"}


def default_cache() -> Path:
    """Return the folder of the store: ``$FEATCACHE_CACHE``, else the user's cache folder."""
    chosen = os.environ.get("FEATCACHE_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "featcache"


class Recipe(Section):
    """A whole recipe. Make one with `Recipe.load` or `Recipe.parse`.

    Attributes
    ----------
    data, base, augment, heads, selection, sweep, finetune
        The sections; every setting has a default, but ``augment`` and ``finetune`` are there only if said.
    cache : Path
        Folder of the store, shared between recipes.
    run : Path
        Folder that the results go to.
    seed : int
        Of the heads: initial weights, order of batches, dropout. The split has ``data.seed`` of its own.
    """

    data: DataSettings
    base: BaseSettings = BaseSettings()
    augment: AugmentSettings | None = None
    heads: Annotated[tuple[HeadSettings, ...], Field(min_length=1)] = Field(
        default=DEFAULT_HEADS, validate_default=True
    )
    selection: SelectionSettings = SelectionSettings()
    sweep: SweepSettings = SweepSettings()
    finetune: FinetuneSettings | None = None
    cache: PlainPath = Field(default_factory=default_cache)
    run: PlainPath = Path("runs/featcache")
    seed: Seed = 0

    @model_validator(mode="after")
    def _name_heads(self) -> Recipe:
        """Give every head a name of its own, so that results and folders can be told apart."""
        given = [head.name for head in self.heads if head.name]
        _check_different(given)
        taken = {name.lower() for name in given}
        named = []
        for head in self.heads:
            name = head.name or _free_name(head.default_name, taken)
            check_head_name(name)
            taken.add(name.lower())
            named.append(head.model_copy(update={"name": name}))
        object.__setattr__(self, "heads", tuple(named))
        return self

    @model_validator(mode="after")
    def _folds_go_with_the_method(self) -> Recipe:
        if self.data.folds is not None and self.selection.method == "validation":
            raise ValueError(
                f"data.folds = {self.data.folds} does not go with selection.method = 'validation'; remove "
                "one of the two"
            )
        return self

    @property
    def trains_on_validation(self) -> bool:
        """Whether cross-validation is asked for, whatever the number of photos."""
        return self.data.folds is not None or self.selection.method == "cross_validation"

    @property
    def sweep_metric(self) -> Metric:
        """The metric of sweeps: their own, or that of the whole recipe."""
        return self.sweep.metric or self.selection.metric

    @classmethod
    def load(cls, source: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None) -> Recipe:
        """Read a TOML recipe, or make one for a folder of photos or a CSV manifest.

        Parameters
        ----------
        source : path
            A ``.toml`` file, a folder of photos, or a ``.csv`` manifest.
        overrides : mapping, optional
            Dotted keys and their values, e.g. ``{"base.image_size": 96}``; `None` values are left out.

        Raises
        ------
        RecipeError
            The file is missing, is not TOML, or says something that cannot be.
        """
        path = Path(source)
        if _is_folder(path):
            raw: dict[str, Any] = {"data": {"root": str(path)}}
        elif path.suffix.lower() == ".csv":
            raw = {"data": {"manifest": str(path)}}
        else:
            raw = _read_toml(path)
        raw.setdefault("run", str(Path("runs") / _run_name(path)))
        return cls.parse(raw, overrides, origin=str(path))

    @classmethod
    def parse(
        cls, raw: Mapping[str, Any], overrides: Mapping[str, Any] | None = None, origin: str = "recipe"
    ) -> Recipe:
        """Validate plain data as a recipe, after applying `overrides`.

        Raises
        ------
        RecipeError
            With the key, the value and what is allowed.
        """
        data = plain_copy(raw)
        given = {key: value for key, value in (overrides or {}).items() if value is not None}
        for key, value in given.items():
            set_by_key(data, key, value)
        if len(given.keys() & _EITHER) == 1 and isinstance(data["finetune"], dict):
            for key in _EITHER - given.keys():  # it overrides the recipe's other way to say the same
                data["finetune"].pop(key.removeprefix("finetune."), None)
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise RecipeError(explain(error, cls, origin)) from None

    def with_heads(self, names: Sequence[str]) -> Recipe:
        """Return the recipe with only the named heads, in the recipe's order.

        They are compared on the same photos as all heads together: where one of these needs validation for
        its calibration, on validation.

        Raises
        ------
        RecipeError
            A name is none of the recipe's heads.
        """
        known = [str(head.name) for head in self.heads]
        for name in names:
            if name not in known:
                raise RecipeError(
                    f"no head is named {name!r}; the recipe's heads are {', '.join(known)}."
                    + did_you_mean(name, known)
                )
        chosen: dict[str, Any] = {"heads": tuple(head for head in self.heads if head.name in names)}
        calibrates = any(head.calibrate != "none" for head in self.heads)
        if calibrates and self.selection.method == "auto" and self.data.folds is None:
            chosen["selection"] = self.selection.model_copy(update={"method": "validation"})
        return self.model_copy(update=chosen)


def _run_name(source: Path) -> str:
    """Return the default name of a run: a folder's whole name, a file's without ``.toml`` or ``.csv``."""
    path = source.resolve()
    is_file = path.suffix.lower() in (".toml", ".csv") and not path.is_dir()
    return (path.stem if is_file else path.name) or "featcache"


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError:
        reason = "does not exist"
    except (
        OSError,
        ValueError,
    ) as error:  # too long, with NUL, in a folder that may not be entered
        reason = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    name = str(path) if len(str(path)) <= _LONGEST_NAME else f"{str(path)[:_LONGEST_NAME]}…"
    raise RecipeError(f"{name} {reason}; give a TOML recipe, a folder of photos or a CSV manifest")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_regular(path, _LARGEST_RECIPE).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{path} is not a TOML recipe: {error}") from None
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}") from None


def _check_different(names: Sequence[str]) -> None:
    """Raise a ValueError where two heads would share a folder; some file systems ignore case."""
    first: dict[str, str] = {}
    for name in names:
        earlier = first.get(name.lower())
        first[name.lower()] = name
        if earlier == name:
            raise ValueError(f"two heads are named {name!r}; names must differ")
        if earlier is not None:
            raise ValueError(f"heads {earlier!r} and {name!r} differ only in case; names must differ in more")


def _free_name(name: str, taken: set[str]) -> str:
    number, free = 1, name
    while free.lower() in taken:
        number += 1
        free = f"{name}-{number}"
    return free
