"""The command predict."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featcache.cli_options import Json, ModelPlace, MovedWeights, SearchedCache
from featcache.cli_output import Failures, print_json, print_text, working
from featcache.errors import FeatcacheError

if TYPE_CHECKING:
    from featcache.model import Model
    from featcache.prediction import Prediction


def predict(
    model: ModelPlace,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Photos and folders of photos.")],
    grid: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="Draw up to 25 photos with their predicted classes. If a photo's folder has the name of a "
            "class, that is taken as its label: correct is green, wrong is red. Photos that the model was "
            "trained on are marked.",
        ),
    ] = None,
    wrong_first: Annotated[
        bool, typer.Option("--wrong-first", help="Draw mistakes first, most confident first.")
    ] = False,
    top: Annotated[
        int | None, typer.Option(min=1, metavar="K", help="Show the K most probable classes.")
    ] = None,
    sort_into: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Place each photo in DIR/CLASS/ by its predicted class, as a hard link, or as a copy on "
            "another disk. Nothing is moved or replaced.",
        ),
    ] = None,
    reject: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help='Answer "none of these" where novelty is below this, such as 0.05: about this share of '
            "photos of the classes is rejected, too.",
        ),
    ] = None,
    set_size: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Also give the classes among which the true one is, but for this share of photos, such "
            "as 0.1.",
        ),
    ] = None,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the result as CSV only.")] = False,
    cache: SearchedCache = None,
    weights: MovedWeights = None,
) -> None:
    """Predict class and probability of photos, and how far they are from all classes."""
    if as_json and as_csv:
        raise typer.BadParameter("choose one of --json and --csv")
    if wrong_first and grid is None:
        raise typer.BadParameter("--wrong-first goes with --grid")
    with working(as_json or as_csv) as (reporter, out):
        from featcache.model import Model
        from featcache.report import tables
        from featcache.report.predictions import check_top, further_columns, prediction_json, sentences
        from featcache.report.streams import write_csv

        _check_places(grid, sort_into, images)
        loaded = Model.load(model, cache=cache, weights=weights)
        check_top(loaded, top)
        predictions = list(loaded.predict(images, reporter, reject=reject, set_size=set_size))
        more = further_columns(loaded, reject, set_size)
    if as_json:
        print_json([prediction_json(one, top, more) for one in predictions], out)
    elif as_csv:
        write_csv(predictions, loaded.classes, out, top, more)
    else:
        print_text(tables.predictions_table(predictions, top, more))
        print_text(*sentences(predictions, reject, set_size))
    if all(one.reason is not None for one in predictions):
        raise FeatcacheError("none of the photos could be decoded")
    _place(predictions, loaded, grid, wrong_first, sort_into, as_json or as_csv)


def _check_places(grid: Path | None, sort_into: Path | None, images: Sequence[Path]) -> None:
    """Check where results go before the work, not after it."""
    from featcache.files import check_file_target
    from featcache.report.plots import check_name
    from featcache.sorting import check_sort_folder

    if grid is not None:
        check_file_target(check_name(grid))
    if sort_into is not None:
        check_sort_folder(sort_into, images)


def _place(
    predictions: "Sequence[Prediction]",
    model: "Model",
    grid: Path | None,
    wrong_first: bool,
    sort_into: Path | None,
    for_programs: bool,
) -> None:
    """Draw the grid and sort the photos; one that fails does not stop the other."""
    failures = Failures()
    if grid is not None:
        from featcache.report.grid import write_grid

        picture = functools.partial(write_grid, predictions, model.classes, grid, wrong_first, model.photos)
        if failures.of(picture, None):
            _say(f"Grid: {grid}", for_programs)
    if sort_into is not None:
        from featcache.sorting import sort_photos

        done = sort_photos(sort_into, predictions, model.classes)
        _say(done.sentence, for_programs)
        failures.of(done.raise_if_any_failed, None)
    failures.raise_if_any()


def _say(text: str, for_programs: bool) -> None:
    """Print a sentence, to standard error where standard output is for programs."""
    from featcache.report.streams import printable

    typer.echo(printable(text), err=for_programs)
