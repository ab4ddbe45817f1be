"""The command `featcache cache`: what the store holds, and what may go."""

import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featcache.cli_options import Json

if TYPE_CHECKING:
    from featcache.store.cache import CachedBase, Removal

app = typer.Typer(help="Show what the store holds, by base.", rich_markup_mode=None)

Cache = Annotated[Path | None, typer.Option("--cache", help="Folder of the store.")]

_SECONDS = {"h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}
_BYTES = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


def _seconds(text: str) -> float:
    """Read a time such as 12h, 30d or 8w."""
    return _amount(text, _SECONDS, "a time such as 12h, 30d or 8w")


def _bytes(text: str) -> float:
    """Read a size such as 500MB or 10GB."""
    return _amount(text, _BYTES, "a size such as 500MB or 10GB")


def _amount(text: str, units: dict[str, int], wanted: str) -> float:
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*([a-z]*)", text.strip().lower())
    if match is None or match[2] not in units:
        raise typer.BadParameter(f"{text!r} is not {wanted}")
    return float(match[1]) * units[match[2]]


@app.callback(invoke_without_command=True)
def show(context: typer.Context, cache: Cache = None, as_json: Json = False) -> None:
    """Show what the store holds, by base: photos, rows, size and last use."""
    if context.invoked_subcommand is not None:
        context.obj = cache
        return
    from featcache.report import cache as tables
    from featcache.report.console import print_parts
    from featcache.store.cache import list_cache

    contents = list_cache(_folder(cache))
    if as_json:
        _print_json(contents.to_json())
    else:
        print_parts(tables.contents_table(contents), *tables.unreadable_sentences(contents))


@app.command()
def prune(
    context: typer.Context,
    older: Annotated[
        float | None,
        typer.Option(parser=_seconds, metavar="TIME", help="Only bases not used for so long, as 30d."),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Only this base: the name of its folder, or of the network.")
    ] = None,
    max_size: Annotated[
        float | None,
        typer.Option(
            parser=_bytes, metavar="SIZE", help="Only as many as needed for a store of at most SIZE, as 10GB."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove them; without it they are only shown.")] = False,
    cache: Cache = None,
    as_json: Json = False,
) -> None:
    """Remove the features of bases, the longest unused first. Bases that are in use stay."""
    from featcache.store import cache as store

    if older is None and base is None and max_size is None:
        raise typer.BadParameter("say what to remove: --older TIME, --base NAME or --max-size SIZE")
    folder = _folder(cache or context.obj)
    contents = store.list_cache(folder)
    limit = None if max_size is None else int(max_size)
    chosen = store.choose(contents, time.time(), name=base, older=older, max_bytes=limit)
    removal = store.prune(folder, chosen) if yes else None
    if as_json:
        shown = {"chosen": [one.to_json() for one in chosen]}
        _print_json(shown | (store.Removal() if removal is None else removal).to_json())
    else:
        _print_removal(chosen, removal)


def _print_removal(chosen: "Sequence[CachedBase]", removal: "Removal | None") -> None:
    from featcache.report import cache as tables
    from featcache.report.console import print_parts

    if chosen:
        print_parts(tables.bases_table(chosen, "chosen, the longest unused first"))
    if removal is None:
        print_parts(tables.preview_sentence(chosen))
    else:
        print_parts(*tables.removal_sentences(removal))


def _folder(cache: Path | None) -> Path:
    from featcache.recipe import default_cache

    return default_cache() if cache is None else cache


def _print_json(value: Any) -> None:
    from featcache.report.streams import output_for_programs, write_json

    sys.stdout.flush()
    with output_for_programs() as out:
        write_json(value, out)
