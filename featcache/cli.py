"""The command line: open, call, print. Nothing is computed here."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from featcache.errors import FeatcacheError

if TYPE_CHECKING:
    from featcache.model import Prediction
    from featcache.recipe import Recipe
    from featcache.reporter import Reporter

app = typer.Typer(
    name="featcache",
    help="Image classifiers in seconds on a CPU: photos go through a frozen network once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)

Source = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="A TOML recipe, a folder of photos or a CSV manifest.")
]
SetKeys = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override any key of the recipe.")
]
BaseName = Annotated[str | None, typer.Option("--base", help="Network: VGG16, hub:NAME or FILE.keras.")]
Weights = Annotated[str | None, typer.Option(help='"imagenet", "random" or a weights file.')]
ImageSize = Annotated[
    int | None, typer.Option(help="Side of the square that photos are resized to, in pixels.")
]
Cache = Annotated[Path | None, typer.Option(help="Folder of the store.")]
Run = Annotated[Path | None, typer.Option(help="Folder for the results.")]
Strict = Annotated[bool, typer.Option("--strict", help="Fail when a photo cannot be used.")]
HeadNames = Annotated[
    list[str] | None, typer.Option("--head", metavar="NAME", help="Train only this head; may be repeated.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as version_of

        typer.echo(version_of("featcache"))
        raise typer.Exit


@app.command()
def features(
    source: Source,
    set_: SetKeys = None,
    base: BaseName = None,
    weights: Weights = None,
    image_size: ImageSize = None,
    cache: Cache = None,
    run: Run = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Stage 1: photos to features.h5; only what the store does not have is computed."""
    recipe = _recipe(source, set_, base, weights, image_size, cache, run, strict)
    with _working(as_json) as (reporter, out):
        from featcache.extraction import extract

        extraction = extract(recipe, reporter)
    if as_json:
        _print_json(extraction.to_json(), out)
        return
    from featcache.report import tables

    if extraction.skipped:
        _print(tables.skipped_table(extraction.skipped))
    _print(tables.extraction_sentence(extraction))


@app.command()
def heads(
    source: Source,
    head: HeadNames = None,
    set_: SetKeys = None,
    base: BaseName = None,
    weights: Weights = None,
    image_size: ImageSize = None,
    cache: Cache = None,
    run: Run = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Stage 2: train the recipe's heads on the features and score them; stage 1 runs first where needed."""
    recipe = _recipe(source, set_, base, weights, image_size, cache, run, strict)
    if head:
        recipe = recipe.with_heads(head)
    with _working(as_json) as (reporter, out):
        from featcache.train import train_heads

        training = train_heads(recipe, reporter)
    if as_json:
        _print_json(training.to_json(), out)
        return
    from featcache.report import tables

    if training.extraction.skipped:
        _print(tables.skipped_table(training.extraction.skipped))
    _print(tables.extraction_sentence(training.extraction), "")
    _print(tables.heads_table(training), "", tables.best_sentence(training))


@app.command()
def run(
    source: Source,
    set_: SetKeys = None,
    base: BaseName = None,
    weights: Weights = None,
    image_size: ImageSize = None,
    cache: Cache = None,
    run: Run = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Run all stages that the recipe asks for."""
    heads(source, None, set_, base, weights, image_size, cache, run, strict, as_json)


@app.command()
def info(
    source: Annotated[
        Path,
        typer.Argument(metavar="RECIPE|FILE|MODEL", help="A recipe, a feature file or a model's folder."),
    ],
    set_: SetKeys = None,
    base: BaseName = None,
    weights: Weights = None,
    image_size: ImageSize = None,
    cache: Cache = None,
    as_json: Json = False,
) -> None:
    """Say what a feature file or a model is, or what a recipe would compute, without doing it."""
    from featcache.report import facts, tables

    with _working(as_json) as (reporter, out):
        if facts.is_feature_file(source):
            found = facts.of_feature_file(source)
        elif facts.is_model(source):
            found = facts.of_model(source)
        else:
            recipe = _recipe(source, set_, base, weights, image_size, cache, None, False)
            found = facts.of_recipe(recipe, reporter)
    if as_json:
        _print_json(found, out)
    else:
        _print(tables.facts_table(found))


@app.command()
def sample(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which sample: digits.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that does not exist yet.")],
) -> None:
    """Write sample photos in class folders, to try featcache with."""
    from featcache.images.samples import write_sample

    count = write_sample(name, folder)
    _print(f"{count:,} photos in {folder}")


@app.command()
def predict(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A model's folder, or a run's for its best.")
    ],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Photos, folders or both.")],
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the result as CSV, and nothing else.")] = False,
) -> None:
    """Classify photos: class and probability of each."""
    if as_json and as_csv:
        raise typer.BadParameter("choose one of --json and --csv")
    with _working(as_json or as_csv) as (reporter, out):
        from featcache.model import Model

        loaded = Model.load(model)
        predictions = list(loaded.predict(images, reporter))
    if as_json:
        _print_json([one.to_json() for one in predictions], out)
    elif as_csv:
        _print_csv(predictions, loaded.classes, out)
    else:
        from featcache.report import tables

        _print(tables.predictions_table(predictions))
    if all(one.label is None for one in predictions):
        raise FeatcacheError("none of the photos could be decoded")


@app.command()
def pack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A features.h5.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")],
) -> None:
    """Write a feature file with its numbers inside, to take elsewhere."""
    from featcache.store.feature_file import Features
    from featcache.store.feature_file import pack as pack_file

    with Features(file) as opened:
        pack_file(opened, output)
    _print(f"{output} ({output.stat().st_size / 1e6:,.1f} MB)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 done, 1 an expected failure, 2 wrong usage."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return int(app(words, standalone_mode=True) or 0)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except FeatcacheError as error:
        if "--debug" in words:
            raise
        typer.echo(f"featcache: {error}", err=True)
        return 1


def _recipe(
    source: Path,
    set_: Sequence[str] | None,
    base: str | None,
    weights: str | None,
    image_size: int | None,
    cache: Path | None,
    run: Path | None,
    strict: bool,
) -> Recipe:
    from featcache.recipe import Recipe, parse_override

    overrides: dict[str, Any] = {
        "base.name": base,
        "base.weights": weights,
        "base.image_size": image_size,
        "cache": None if cache is None else str(cache),
        "run": None if run is None else str(run),
        "data.strict": True if strict else None,
    }
    return Recipe.load(source, overrides | dict(parse_override(text) for text in set_ or []))


@contextlib.contextmanager
def _working(for_programs: bool) -> Iterator[tuple[Reporter, IO[str]]]:
    """Give a reporter and the stream for results.

    For programs, whatever a library prints meanwhile goes to standard error, also from compiled code.
    """
    from featcache.report.progress import TerminalReporter

    with contextlib.ExitStack() as stack:
        out = stack.enter_context(_standard_output_kept_clean()) if for_programs else sys.stdout
        try:
            yield stack.enter_context(TerminalReporter(sys.stderr)), out
        except KeyboardInterrupt:
            typer.echo("featcache: stopped; what was computed is kept", err=True)
            raise typer.Exit(130) from None


@contextlib.contextmanager
def _standard_output_kept_clean() -> Iterator[IO[str]]:
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    out = os.fdopen(os.dup(kept), "w", encoding="utf-8")
    try:
        yield out
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _print(*parts: Any) -> None:
    from rich.console import Console

    # a pipe has no width: without this tables would be cut at 80 columns
    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=200)
    for part in parts:
        if isinstance(part, str):
            console.print(part, markup=False, soft_wrap=True)
        else:
            console.print(part)


def _print_json(value: Any, out: IO[str]) -> None:
    with out:
        out.write(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def _print_csv(predictions: Sequence[Prediction], classes: Sequence[str], out: IO[str]) -> None:
    with out:
        writer = csv.writer(out)
        writer.writerow(["path", "label", "probability", *classes])
        for one in predictions:
            shares = one.probabilities or {}
            writer.writerow([one.path, one.label or "", one.probability, *(shares.get(c) for c in classes)])


if __name__ == "__main__":
    sys.exit(main())
