"""The command line: open, call, print."""

import contextlib
import functools
import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from featcache import cli_cache, cli_evaluate, cli_predict
from featcache.cli_options import Json
from featcache.cli_output import (
    Failures,
    print_extraction,
    print_finetuning,
    print_json,
    print_text,
    print_training,
    working,
)
from featcache.cli_recipe import Load, takes_recipe
from featcache.errors import FeatcacheError, OutputError

app = typer.Typer(
    name="featcache",
    help="Train image classifiers on a CPU: each photo goes through a frozen network once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)

app.add_typer(cli_cache.app, name="cache")

ShowProfile = Annotated[bool, typer.Option("--profile", help="Show where the computing time was spent.")]


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
@takes_recipe
def features(load: Load, profile: ShowProfile = False, as_json: Json = False) -> None:
    """Stage 1: extract features to features.h5; only missing features are computed."""
    with working(as_json) as (reporter, out):
        from featcache.extraction.stage import extract

        extraction = extract(load(), reporter)
    if as_json:
        shown = {"profile": extraction.profile.to_json()} if profile else {}
        print_json(extraction.to_json() | shown, out)
    else:
        print_extraction(extraction, profile)


@app.command()
@takes_recipe
def heads(
    load: Load,
    head: Annotated[
        list[str] | None,
        typer.Option("--head", metavar="NAME", help="Train only this head; can be repeated."),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(help="Cross-validate with this number of folds.", show_default=False),
    ] = None,
    details: Annotated[bool, typer.Option("--details", help="Show the best head's scores by class.")] = False,
    plots: Annotated[bool, typer.Option("--plots", help="Draw the learning curves of Dense heads.")] = False,
    learning_curve: Annotated[
        bool, typer.Option("--learning-curve", help="Say what twice as many training photos would give.")
    ] = False,
    seeds: Annotated[
        int | None,
        typer.Option(help="Show the spread of Dense heads over this number of seeds, such as 5."),
    ] = None,
    profile: ShowProfile = False,
    as_json: Json = False,
) -> None:
    """Stage 2: train and score the recipe's heads; runs stage 1 first if needed."""
    recipe = load(more={"data.folds": folds})
    recipe = recipe.with_heads(head) if head else recipe
    more = cli_evaluate.More(recipe, learning_curve, seeds)
    with working(as_json) as (reporter, out):
        from featcache.report import plots as pictures
        from featcache.training import train_heads

        training = train_heads(recipe, reporter)
        failures = Failures(training)
        draw = functools.partial(pictures.write_curves_of_heads, training)
        curves = failures.of(draw, list[Path]()) if plots else []
        more.measure(training.extraction, reporter, failures)
    if as_json:
        shown = {"curves": list(map(str, curves))} if plots else {}
        print_json(training.to_json() | shown | more.to_json(), out)
    else:
        from featcache.report import tables

        print_training(training, profile)
        print_text(*(f"Learning curves: {path}" for path in curves))
        print_text(*(part for table in tables.details_tables(training) if details for part in ("", table)))
        print_text(*more.parts())
    failures.raise_if_any()


@app.command()
@takes_recipe
def sweep(
    load: Load,
    trials: Annotated[int | None, typer.Option(help="Number of trials, including earlier runs.")] = None,
    as_json: Json = False,
) -> None:
    """Stage 2b: hyperparameter search over heads, as defined in [sweep]; an interrupted search resumes."""
    recipe = load(more={"sweep.trials": trials})
    with working(as_json) as (reporter, out):
        from featcache.search.sweep import run_sweep

        result = run_sweep(recipe, reporter)
    if as_json:
        print_json(result.to_json(), out)
        return
    from featcache.report import sweep as tables_of_sweep

    print_extraction(result.extraction, profile=False)
    print_text(
        "", tables_of_sweep.leaderboard_table(result.leaderboard), tables_of_sweep.foot(result.leaderboard)
    )
    print_text("", tables_of_sweep.best_sentence(result))


@app.command()
@takes_recipe
def finetune(
    load: Load,
    from_layer: Annotated[str | None, typer.Option(help="First layer to train, by name.")] = None,
    unfreeze_from: Annotated[int | None, typer.Option(help="First layer to train, by index.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Number of epochs.")] = None,
    end_to_end: Annotated[
        bool, typer.Option("--end-to-end", help="Train end to end instead, for comparison.")
    ] = False,
    score_epochs: Annotated[bool, typer.Option("--score-epochs", help="Also evaluate on test.")] = False,
    as_json: Json = False,
) -> None:
    """Stage 3: train the base's top layers and a head from cached features."""
    given = {"from_layer": from_layer, "unfreeze_from": unfreeze_from, "epochs": epochs}
    recipe = load(more={f"finetune.{key}": value for key, value in given.items()})
    with working(as_json) as (reporter, out):
        from featcache.finetuning.stage import finetune as run_stage
        from featcache.report import plots

        result = run_stage(recipe, reporter, end_to_end=end_to_end, score_epochs=score_epochs)
        failures = Failures()
        curves = failures.of(lambda: plots.write_curves_of_finetuning(result), None)
    if as_json:
        print_json(result.to_json() | {"curves": curves and str(curves)}, out)
    else:
        print_finetuning(result, curves)
    failures.raise_if_any()


@app.command()
@takes_recipe
def run(load: Load, as_json: Json = False) -> None:
    """Train the heads, and fine-tune if the recipe has [finetune]; sweep is a separate command."""
    recipe = load()
    with working(as_json) as (reporter, out):
        from featcache.finetuning.stage import train_and_finetune
        from featcache.report import plots

        training, tuned = train_and_finetune(recipe, reporter)
        failures = Failures(training)
        curves = failures.of(lambda: plots.write_curves_of_finetuning(tuned), None) if tuned else None
    if as_json:
        more = {"finetune": tuned.to_json() | {"curves": curves and str(curves)}} if tuned else {}
        print_json(training.to_json() | more, out)
    else:
        print_training(training, profile=False)
        if tuned:
            print_text("")
            print_finetuning(tuned, curves)
    failures.raise_if_any()


@app.command()
@takes_recipe
def info(load: Load, as_json: Json = False) -> None:
    """Describe a feature file or a model, or what a recipe would compute, without computing it."""
    from featcache.report import facts, tables

    source = load.keywords["source"]
    with working(as_json) as (reporter, out):
        if facts.is_feature_file(source):
            found = facts.of_feature_file(source)
        elif facts.is_model(source):
            found = facts.of_model(source)
        else:
            found = facts.of_recipe(load(overwrite=True), reporter)  # nothing is written
    if as_json:
        print_json(found, out)
    else:
        print_text(tables.facts_table(found))


app.command()(cli_predict.predict)
app.command()(cli_evaluate.evaluate)


@app.command()
def sample(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the sample: digits.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
) -> None:
    """Write sample images in class folders."""
    from featcache.images.samples import write_sample

    count = write_sample(name, folder)
    print_text(f"{count:,} photos in {folder}")


@app.command()
def export(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A model folder, or a run folder for its best head.")
    ],
    to: Annotated[str, typer.Option(help="Format: keras, saved_model, tflite, onnx or openvino.")],
    quantize: Annotated[str, typer.Option(help="Of tflite: none, float16 or int8.")] = "none",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Output folder; default: RUN/exports/HEAD/FORMAT.")
    ] = None,
    photos: Annotated[
        Path | None, typer.Option(help="Folder of photos for the check instead of the recipe's.")
    ] = None,
    novelty: Annotated[
        bool, typer.Option("--novelty", help="Also write novelty as a second output; not for tflite.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Export a model, and keep the export if its runtime predicts the same labels on photos."""
    with working(as_json) as (reporter, out):
        from featcache.exporting.stage import export as run_stage

        result = run_stage(
            model,
            to,
            quantize=quantize,
            output=output,
            photos=photos,
            novelty=novelty,
            reporter=reporter,
        )
    if as_json:
        print_json(result.to_json(), out)
        return
    from featcache.report import exports

    print_text(exports.export_table(result), f"Export: {result.file}")


@app.command()
def pack(
    source: Annotated[
        Path, typer.Argument(metavar="FILE|MODEL", help="A features.h5, or a model or run folder.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Output file: .h5, of a model .zip.")],
) -> None:
    """Write a feature file with its features, or a model with its base, as one file for any machine."""
    from featcache.files import check_file_target
    from featcache.report.facts import is_feature_file

    check_file_target(output)
    if is_feature_file(source):
        from featcache.store.feature_file import Features
        from featcache.store.packing import pack as pack_file

        with Features(source) as opened:
            pack_file(opened, output)
    else:
        from featcache.model import Model

        Model.load(source).pack(output)
    print_text(f"{output} ({output.stat().st_size / 1e6:,.1f} MB)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    0 success, 1 expected failure, 2 wrong usage, 130 stopped with Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    # a command makes many small objects that stay; looking for cycles among them takes a fifth of its time
    gc.set_threshold(200_000, 20, 100)
    from featcache.report import streams

    try:
        streams.prepare_streams()
        status = _run(words)
        streams.finish_output()
        return status
    except BrokenPipeError:
        streams.drop_output()  # nobody reads it any more, which is no failure to speak of
        return 1
    except KeyboardInterrupt:
        streams.print_error("stopped; what was computed is kept")
        return 130
    except (FeatcacheError, OSError, MemoryError) as error:
        if "--debug" in words:
            raise
        streams.print_error(_explain(error))
        with contextlib.suppress(BrokenPipeError, OutputError):
            streams.finish_output()
        return 1


def _run(words: Sequence[str]) -> int:
    try:
        return int(app(words, standalone_mode=True) or 0)
    except SystemExit as stop:
        if stop.code == 130:  # Typer's answer to Ctrl-C
            raise KeyboardInterrupt from None
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)


def _explain(error: FeatcacheError | OSError | MemoryError) -> str:
    if isinstance(error, MemoryError):
        return "out of memory; close other programs, or use fewer photos, views or heads at a time"
    if isinstance(error, OSError):
        place = error.filename if isinstance(error.filename, str | bytes) else "standard output"
        return f"{os.fsdecode(place)}: {error.strerror or error}"
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
