"""The options that every command on recipes takes."""

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

if TYPE_CHECKING:
    from featcache.recipe import Recipe


def read_recipe(
    source: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="A TOML recipe, a folder of photos or a CSV manifest.")
    ],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override any key of the recipe.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="Network: VGG16, hub:NAME or FILE.keras.")] = None,
    weights: Annotated[str | None, typer.Option(help='"imagenet", "random" or a weights file.')] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the square input, in pixels.")] = None,
    engine: Annotated[str | None, typer.Option(help="auto, openvino or tensorflow.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, f32 or bf16.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Stored type: auto, float16 or float32.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of the store.")] = None,
    run: Annotated[Path | None, typer.Option(help="Folder for the results.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail if a photo cannot be used.")] = False,
    rehash: Annotated[
        bool, typer.Option("--rehash", help="Read all photos again, also those that seem unchanged.")
    ] = False,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Skip photos of a manifest that do not exist.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results of other photos or of another base.")
    ] = False,
    *,
    more: Mapping[str, Any] | None = None,
) -> "Recipe":
    """Read the recipe with the options that override it, and check that its run may be written."""
    from featcache.recipe import Recipe, parse_override

    overrides: dict[str, Any] = {
        "base.name": base,
        "base.weights": weights,
        "base.image_size": image_size,
        "base.engine": engine,
        "base.precision": precision,
        "base.dtype": dtype,
        "cache": None if cache is None else str(cache),
        "run": None if run is None else str(run),
        "data.strict": True if strict else None,
        "data.rehash": True if rehash else None,
        "data.skip_missing": True if skip_missing else None,
    }
    given = dict(parse_override(text) for text in set_ or [])
    own = {key: value for key, value in (more or {}).items() if value is not None}
    recipe = Recipe.load(source, overrides | given | own)
    if not overwrite:
        from featcache.run.origin import check_origin

        check_origin(recipe)
    return recipe


# `read_recipe` bound to what a user gave: a command calls it when it wants the recipe, with overrides
# of its own.
Load: TypeAlias = "functools.partial[Recipe]"


def takes_recipe(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `read_recipe` in place of its first parameter, a `Load`."""
    shared = {name: one for name, one in inspect.signature(read_recipe).parameters.items() if name != "more"}
    _, *own = inspect.signature(command).parameters.values()

    @functools.wraps(command)
    def with_options(**values: Any) -> None:
        command(functools.partial(read_recipe, **{name: values.pop(name) for name in shared}), **values)

    parameters = [*shared.values(), *own]
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {one.name: one.annotation for one in parameters}
    return with_options
