"""Options and arguments that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON only.")]

ModelPlace = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL", help="A model folder, a run folder for its best head, or a packed model."
    ),
]

SearchedCache = Annotated[Path | None, typer.Option(help="Folder of the store that is searched first.")]

MovedWeights = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The base's weights, if they are elsewhere now; they are checked."),
]
