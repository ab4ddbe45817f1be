"""The command line: open, call, print. Nothing is computed here."""

import contextlib
import csv
import functools
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from featcache.errors import FeatcacheError

if TYPE_CHECKING:
    from featcache.extraction.stage import Extraction
    from featcache.finetuning.stage import Finetuning
    from featcache.model import Prediction
    from featcache.recipe import Recipe
    from featcache.reporter import Reporter
    from featcache.training import Training

app = typer.Typer(
    name="featcache",
    help="Image classifiers in seconds on a CPU: photos go through a frozen network once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")]
ShowProfile = Annotated[bool, typer.Option("--profile", help="Show where the time of computing went.")]


def _recipe(
    source: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="A TOML recipe, a folder of photos or a CSV manifest.")
    ],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override any key of the recipe.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="Network: VGG16, hub:NAME or FILE.keras.")] = None,
    weights: Annotated[str | None, typer.Option(help='"imagenet", "random" or a weights file.')] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the square photos, in pixels.")] = None,
    engine: Annotated[str | None, typer.Option(help="auto, openvino or tensorflow.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, f32 or bf16.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Stored type: auto, float16 or float32.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of the store.")] = None,
    run: Annotated[Path | None, typer.Option(help="Folder for the results.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail when a photo cannot be used.")] = False,
) -> "Recipe":
    """Read the recipe with the options that override it; every command on recipes takes these."""
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
    }
    return Recipe.load(source, overrides | dict(parse_override(text) for text in set_ or []))


# `_recipe` bound to what a user gave: a command calls it when it wants the recipe.
Load: TypeAlias = "functools.partial[Recipe]"


def _load_with(load: Load, overrides: dict[str, int | str | None]) -> "Recipe":
    """Read the recipe with a command's own options, which override what `--set` says."""
    asked = [f"{key}={value}" for key, value in overrides.items() if value is not None]
    return load(set_=[*(load.keywords["set_"] or []), *asked])


def _takes_recipe(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `_recipe` in place of its first parameter, `_recipe` bound to them."""
    shared = inspect.signature(_recipe).parameters
    _, *own = inspect.signature(command).parameters.values()

    @functools.wraps(command)
    def with_options(**values: Any) -> None:
        command(functools.partial(_recipe, **{name: values.pop(name) for name in shared}), **values)

    parameters = [*shared.values(), *own]
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {one.name: one.annotation for one in parameters}
    return with_options


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
@_takes_recipe
def features(load: Load, profile: ShowProfile = False, as_json: Json = False) -> None:
    """Stage 1: photos to features.h5; only what the store does not have is computed."""
    with _working(as_json) as (reporter, out):
        from featcache.extraction.stage import extract

        extraction = extract(load(), reporter)
    if as_json:
        shown = {"profile": extraction.profile.to_json()} if profile else {}
        _print_json(extraction.to_json() | shown, out)
    else:
        _print_extraction(extraction, profile)


@app.command()
@_takes_recipe
def heads(
    load: Load,
    head: Annotated[
        list[str] | None,
        typer.Option("--head", metavar="NAME", help="Train only this head; may be repeated."),
    ] = None,
    folds: Annotated[
        int | None, typer.Option(help="Score by cross-validation with so many folds.", show_default=False)
    ] = None,
    details: Annotated[bool, typer.Option("--details", help="Show the best head's scores by class.")] = False,
    plots: Annotated[
        bool, typer.Option("--plots", help="Draw the Dense heads' learning curves beside their models.")
    ] = False,
    profile: ShowProfile = False,
    as_json: Json = False,
) -> None:
    """Stage 2: train the recipe's heads on the features and score them; stage 1 runs first where needed."""
    recipe = _load_with(load, {"data.folds": folds})
    recipe = recipe.with_heads(head) if head else recipe
    with _working(as_json) as (reporter, out):
        from featcache.report import plots as pictures
        from featcache.training import train_heads

        training = train_heads(recipe, reporter)
        curves = pictures.write_curves_of_heads(training, recipe) if plots else []
    if as_json:
        shown = {"curves": list(map(str, curves))} if plots else {}
        _print_json(training.to_json() | shown, out)
        return
    from featcache.report import tables

    _print_training(training, profile)
    _print(*(f"Learning curves: {path}" for path in curves))
    if details:
        for table in tables.details_tables(training):
            _print("", table)


@app.command()
@_takes_recipe
def sweep(
    load: Load,
    trials: Annotated[int | None, typer.Option(help="How many heads to try, earlier runs included.")] = None,
    as_json: Json = False,
) -> None:
    """Stage 2b: search for the best head, as the recipe's [sweep] says; ended and run again, it goes on."""
    recipe = _load_with(load, {"sweep.trials": trials})
    with _working(as_json) as (reporter, out):
        from featcache.search.sweep import run_sweep

        result = run_sweep(recipe, reporter)
    if as_json:
        _print_json(result.to_json(), out)
        return
    from featcache.report import sweep as tables_of_sweep

    _print_extraction(result.extraction, profile=False)
    _print(
        "", tables_of_sweep.leaderboard_table(result.leaderboard), tables_of_sweep.foot(result.leaderboard)
    )
    _print("", tables_of_sweep.best_sentence(result))


@app.command()
@_takes_recipe
def finetune(
    load: Load,
    from_layer: Annotated[str | None, typer.Option(help="First layer to train, by name.")] = None,
    unfreeze_from: Annotated[int | None, typer.Option(help="First layer to train, by index.")] = None,
    epochs: Annotated[int | None, typer.Option(help="How often the photos are gone through.")] = None,
    end_to_end: Annotated[
        bool, typer.Option("--end-to-end", help="Train through the whole network, to compare.")
    ] = False,
    score_epochs: Annotated[bool, typer.Option("--score-epochs", help="Measure each epoch on test.")] = False,
    as_json: Json = False,
) -> None:
    """Stage 3: train the base's top layers with a head, from features cached below them."""
    layer = None if from_layer is None else json.dumps(from_layer)
    asked = {"from_layer": layer, "unfreeze_from": unfreeze_from, "epochs": epochs}
    recipe = _load_with(load, {f"finetune.{key}": value for key, value in asked.items()})
    with _working(as_json) as (reporter, out):
        from featcache.finetuning.stage import finetune as run_stage
        from featcache.report import plots

        result = run_stage(recipe, reporter, end_to_end=end_to_end, score_epochs=score_epochs)
        curves = plots.write_curves_of_tuning(result)
    if as_json:
        _print_json(result.to_json() | {"curves": str(curves)}, out)
    else:
        _print_tuning(result, curves)


@app.command()
@_takes_recipe
def run(load: Load, as_json: Json = False) -> None:
    """Train the recipe's heads and, where it has a [finetune], fine-tune; a search is asked for by itself."""
    recipe = load()
    with _working(as_json) as (reporter, out):
        from featcache.finetuning.stage import finetune as run_finetuning
        from featcache.report import plots
        from featcache.training import train_heads

        training = train_heads(recipe, reporter)
        tuning = run_finetuning(recipe, reporter) if recipe.finetune is not None else None
        curves = plots.write_curves_of_tuning(tuning) if tuning else None
    if as_json:
        more = {"finetune": tuning.to_json() | {"curves": str(curves)}} if tuning else {}
        _print_json(training.to_json() | more, out)
        return
    _print_training(training, profile=False)
    if tuning and curves:
        _print("")
        _print_tuning(tuning, curves)


@app.command()
@_takes_recipe
def info(load: Load, as_json: Json = False) -> None:
    """Say what a feature file or a model is, or what a recipe would compute, without doing it."""
    from featcache.report import facts, tables

    source = load.keywords["source"]
    with _working(as_json) as (reporter, out):
        if facts.is_feature_file(source):
            found = facts.of_feature_file(source)
        elif facts.is_model(source):
            found = facts.of_model(source)
        else:
            found = facts.of_recipe(load(), reporter)
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
    grid: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="Draw up to 25 of the photos with their classes. A photo in a folder that is named like a "
            "class is taken to be of that class: right is green, wrong is red.",
        ),
    ] = None,
    wrong_first: Annotated[
        bool, typer.Option("--wrong-first", help="Draw the wrong ones first, the most certain in front.")
    ] = False,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the result as CSV, and nothing else.")] = False,
) -> None:
    """Classify photos: class and probability of each."""
    if as_json and as_csv:
        raise typer.BadParameter("choose one of --json and --csv")
    if wrong_first and grid is None:
        raise typer.BadParameter("--wrong-first goes with --grid")
    with _working(as_json or as_csv) as (reporter, out):
        from featcache.model import Model
        from featcache.report import grid as pictures
        from featcache.report import plots, tables

        if grid is not None:
            plots.check_name(grid)  # before the work, not after it
        loaded = Model.load(model)
        predictions = list(loaded.predict(images, reporter))
    if as_json:
        _print_json([one.to_json() for one in predictions], out)
    elif as_csv:
        _print_csv(predictions, loaded.classes, out)
    else:
        _print(tables.predictions_table(predictions))
    if all(one.label is None for one in predictions):
        raise FeatcacheError("none of the photos could be decoded")
    if grid is not None:
        pictures.write_grid(predictions, loaded.classes, grid, wrong_first)
        typer.echo(f"Grid: {grid}", err=as_json or as_csv)


@app.command()
def export(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A model's folder, or a run's for its best.")
    ],
    to: Annotated[str, typer.Option(help="Format: keras, saved_model, tflite, onnx or openvino.")],
    quantize: Annotated[str, typer.Option(help="Of tflite: none, float16 or int8.")] = "none",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder to write, in place of MODEL/export/FORMAT.")
    ] = None,
    photos: Annotated[
        Path | None, typer.Option(help="Folder of photos to check with, in place of the recipe's.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a model in another format, and keep it if its runtime says the same of real photos."""
    with _working(as_json) as (reporter, out):
        from featcache.exporting.stage import export as run_stage

        result = run_stage(model, to, quantize=quantize, output=output, photos=photos, reporter=reporter)
    if as_json:
        _print_json(result.to_json(), out)
        return
    from featcache.report import exports

    _print(exports.export_table(result), f"Export: {result.file}")


@app.command()
def pack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A features.h5.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")],
) -> None:
    """Write a feature file with its numbers inside, to take elsewhere."""
    from featcache.store.feature_file import Features
    from featcache.store.packing import pack as pack_file

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


@contextlib.contextmanager
def _working(for_programs: bool) -> Iterator[tuple["Reporter", IO[str]]]:
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


def _print_extraction(extraction: "Extraction", profile: bool) -> None:
    from featcache.report import tables

    if extraction.skipped:
        _print(tables.skipped_table(extraction.skipped))
    _print(tables.extraction_sentence(extraction))
    if profile:
        _print(tables.profile_table(extraction.profile))


def _print_training(training: "Training", profile: bool) -> None:
    from featcache.report import tables

    _print_extraction(training.extraction, profile)
    _print("", tables.heads_table(training), "", tables.best_sentence(training))


def _print_tuning(result: "Finetuning", curves: Path) -> None:
    from featcache.report import finetuning as tables

    _print_extraction(result.extraction, profile=False)
    _print("", tables.layers_table(result), "", tables.epochs_table(result), "", tables.sentence(result))
    _print(f"Learning curves: {curves}")


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


def _print_csv(predictions: Sequence["Prediction"], classes: Sequence[str], out: IO[str]) -> None:
    with out:
        writer = csv.writer(out)
        writer.writerow(["path", "label", "probability", *classes])
        for one in predictions:
            shares = one.probabilities or {}
            writer.writerow([one.path, one.label or "", one.probability, *(shares.get(c) for c in classes)])


if __name__ == "__main__":
    sys.exit(main())
