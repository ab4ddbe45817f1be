"""The command evaluate, and what the command heads measures on request."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featcache.cli_options import Json, ModelPlace, MovedWeights, SearchedCache
from featcache.cli_output import Failures, print_json, print_text, working

if TYPE_CHECKING:
    from featcache.evaluating.seeds import SeedSpread
    from featcache.evaluating.stage import Evaluation
    from featcache.evaluation.learning_curve import LearningCurve
    from featcache.extraction.stage import Extraction
    from featcache.recipe import Recipe
    from featcache.reporter import Reporter


def evaluate(
    model: ModelPlace,
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER|CSV",
            help="Labelled photos: a folder of class folders, or a CSV manifest with path and label.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR",
            help="Also write evaluation.json, mistakes.csv and reliability.png into this folder.",
        ),
    ] = None,
    grid: Annotated[
        bool, typer.Option("--grid", help="With --output: also draw up to 25 mistakes, mistakes.png.")
    ] = False,
    skip_unknown: Annotated[
        bool, typer.Option("--skip-unknown", help="Leave out photos whose label is no class of the model.")
    ] = False,
    as_json: Json = False,
    cache: SearchedCache = None,
    weights: MovedWeights = None,
) -> None:
    """Score a model on labelled photos it has not seen; photos that it was trained on are left out."""
    if grid and output is None:
        raise typer.BadParameter("--grid goes with --output")
    with working(as_json) as (reporter, out):
        from featcache.evaluating.stage import evaluate as run_stage
        from featcache.files import check_folder_target
        from featcache.model import Model

        if output is not None:
            check_folder_target(output)
        loaded = Model.load(model, cache=cache, weights=weights)
        result = run_stage(loaded, source, skip_unknown=skip_unknown, reporter=reporter)
        failures = Failures()
        files = failures.of(lambda: _write(result, output, grid), list[Path]())
    if as_json:
        shown = {"files": list(map(str, files))} if output is not None else {}
        print_json(result.to_json() | shown, out)
    else:
        _print(result)
        print_text(*map(str, files))
    failures.raise_if_any()


def _write(result: "Evaluation", output: Path | None, grid: bool) -> list[Path]:
    from featcache.report.evaluation import write_evaluation

    return [] if output is None else write_evaluation(result, output, grid)


def _print(result: "Evaluation") -> None:
    from featcache.report import evaluation as tables
    from featcache.report.tables import classes_table, confusion_table, skipped_table

    if result.failed:
        print_text(skipped_table(result.failed), "")
    print_text(*tables.sentences(result))
    print_text("", tables.scores_table(result.scores), "", classes_table(dict(result.scores)))
    print_text("", confusion_table(dict(result.scores), result.classes))
    if result.reliability:
        print_text("", tables.reliability_table(result))
    if result.mistakes:
        print_text("", tables.mistakes_table(result))


class More:
    """The learning curve and the spread over seeds of ``featcache heads``.

    Parameters
    ----------
    recipe : Recipe
    curve : bool
        Whether the learning curve is asked for.
    seeds : int or None
        The number of seeds, where their spread is asked for.

    Raises
    ------
    RecipeError
        There are no Dense heads for the seeds.
    """

    def __init__(self, recipe: "Recipe", curve: bool, seeds: int | None) -> None:
        self._recipe, self._asks_for_curve, self._seeds = recipe, curve, seeds
        self._curve: LearningCurve | None = None
        self._spreads: list[SeedSpread] = []
        self._files: list[Path] = []
        if seeds is not None:
            from featcache.evaluating.seeds import check_seeds

            check_seeds(recipe, seeds)

    def measure(self, extraction: "Extraction", reporter: "Reporter", failures: Failures) -> None:
        """Measure what was asked for; one that fails does not stop the other."""
        if self._asks_for_curve:
            from featcache.evaluating.curve import curve_of_run
            from featcache.report.learning_curve import write_curve

            self._curve = failures.of(lambda: curve_of_run(extraction, self._recipe, reporter), None)
            if (curve := self._curve) is not None:
                self._files = failures.of(lambda: write_curve(curve, extraction.run), list[Path]())
        if (seeds := self._seeds) is not None:
            from featcache.evaluating.seeds import spread_over_seeds

            work = functools.partial(spread_over_seeds, extraction, self._recipe, seeds, reporter)
            self._spreads = failures.of(work, list["SeedSpread"]())

    def to_json(self) -> dict[str, Any]:
        """Return what was measured as JSON-ready data."""
        found: dict[str, Any] = {}
        if self._asks_for_curve:
            found["learning_curve"] = None if self._curve is None else self._curve.to_json()
        if self._seeds is not None:
            found["seeds"] = [one.to_json() for one in self._spreads]
        return found

    def parts(self) -> list[Any]:
        """Return what was measured as texts and tables."""
        from featcache.report import learning_curve as tables

        parts: list[Any] = []
        if self._curve is not None:
            parts += ["", *tables.curve_parts(self._curve)]
            parts += [f"Learning curve: {path}" for path in self._files[1:]]
        if self._spreads:
            parts += ["", *tables.seeds_parts(self._spreads)]
        return parts
