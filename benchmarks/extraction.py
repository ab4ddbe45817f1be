"""Photos to features, from JPEG files: featcache and its peers in turn, each in a fresh process.

python -m benchmarks.extraction [--quick] [--only NAME] [--pairs 3] …
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks import rounds
from benchmarks.configurations import Configuration, choose, configurations
from benchmarks.machine import in_words, machine
from benchmarks.output import console, save
from benchmarks.peers import PEERS
from benchmarks.photos import default_photos, generate, provide, shared_folder
from benchmarks.processes import ChildError, child

OURS = "featcache"
CEILINGS = ("decode", "inference")
DEFAULT_PEERS = ("image_data_generator", "image_dataset")
# one batch of the side with the largest
_WARM_UP = 32

Runs = dict[str, list[dict[str, Any]]]


class Bench:
    """One configuration's photos, its prepared network, and the way to run each side on them."""

    def __init__(
        self, one: Configuration, source: Path | None, folder: Path, pythons: dict[str, str]
    ) -> None:
        self.configuration = one
        self.pythons = pythons
        self.warm_up, self.photos = folder / "warm_up", folder / "photos"
        self.prepared, self.fresh = folder / "prepared", folder / "fresh"
        # seeds that no generated photo to measure has
        generate(self.warm_up, _WARM_UP, (500, 375), first=1_000_000)
        self.count = provide(source, one.count, self.photos)
        self.preparation = self._ours("prepare", self.prepared)

    def run(self, side: str) -> dict[str, Any]:
        """Run one side once, in a process of its own.

        Raises
        ------
        ChildError
            The process failed, or did not go through every photo.
        """
        run = self._run(side)
        # the engine alone is called with whole batches
        if side != "inference" and run["images"] != self.count:
            raise ChildError([side], 0, f"{run['images']} photos came out, {self.count} went in")
        return run

    def _run(self, side: str) -> dict[str, Any]:
        if side in PEERS:
            python = self.pythons.get(side, sys.executable)
            text = self.configuration.to_json()
            return child("peers", side, text, self.warm_up, self.photos, python=python)
        if side in CEILINGS:
            return self._ours(side, self.prepared)
        shutil.rmtree(self.fresh, ignore_errors=True)
        shutil.copytree(self.prepared, self.fresh)
        return self._ours("extract", self.fresh)

    def _ours(self, what: str, cache: Path) -> dict[str, Any]:
        return child("ours", what, self.configuration.to_json(), cache, self.warm_up, self.photos)


def take_turns(bench: Bench, peers: Sequence[str], pairs: int) -> tuple[Runs, dict[str, str]]:
    """Run all sides in turn, `pairs` times; return their runs and why some cannot be run."""
    missing: dict[str, str] = {}
    runs: Runs = {side: [] for side in (OURS, *peers, *CEILINGS)}
    for number in range(pairs):
        for side in [side for side in runs if side not in missing]:
            console().print(f"{bench.configuration.name}: round {number + 1} of {pairs}, {side}", style="dim")
            try:
                runs[side].append(bench.run(side))
            except ChildError as error:
                if side not in PEERS:
                    raise
                missing[side] = error.reason
    return {side: done for side, done in runs.items() if side not in missing}, missing


def summarize(bench: Bench, runs: Runs, missing: dict[str, str]) -> dict[str, Any]:
    """Return a configuration's result, JSON-ready."""
    speeds = {side: rounds.rates(done) for side, done in runs.items()}
    ours, decode, inference = (speeds[side] for side in (OURS, *CEILINGS))
    return {
        "configuration": _without_folders(bench.configuration),
        "photos": bench.count,
        "precision": bench.preparation["precision"],
        "first_preparation_seconds": bench.preparation["process_seconds"],
        "images_per_second": {side: rounds.spread(values) for side, values in speeds.items()},
        "process_seconds": {
            side: rounds.spread([run["process_seconds"] for run in done]) for side, done in runs.items()
        },
        "ratio": {side: rounds.ratios(ours, values) for side, values in speeds.items() if side in PEERS},
        "efficiency": rounds.efficiency(ours, decode, inference),
        "profile": [run["profile"] for run in runs[OURS]],
        "not_available": missing,
    }


def _without_folders(one: Configuration) -> dict[str, Any]:
    return {**asdict(one), "weights": Path(one.weights).name}


def table(result: dict[str, Any]) -> Table:
    """Return what a person looks at: a line per side."""
    one = result["configuration"]
    title = (
        f"{one['name']}: {one['network']} at {one['image_size']} px, {result['precision']}, "
        f"{result['photos']:,} photos"
    )
    shown = Table(title=title, title_justify="left", caption=_caption(result), caption_justify="left")
    shown.add_column("side")
    for heading in ("images/s", "range", "whole process, s", "featcache is faster by", "range"):
        shown.add_column(heading, justify="right")
    for side, speed in result["images_per_second"].items():
        seconds = result["process_seconds"][side]["median"]
        ratio = result["ratio"].get(side)
        faster = [f"{ratio['median']:.2f}×", f"{ratio['min']:.2f}-{ratio['max']:.2f}"] if ratio else ["", ""]
        label = f"ceiling: {side} alone" if side in CEILINGS else side
        bounds = f"{speed['min']:,.1f}-{speed['max']:,.1f}"
        shown.add_row(label, f"{speed['median']:,.1f}", bounds, f"{seconds:.1f}", *faster)
    return shown


def _caption(result: dict[str, Any]) -> str:
    share = result["efficiency"]
    reached = f"{share['median']:.0%} ({share['min']:.0%}-{share['max']:.0%})"
    first = result["first_preparation_seconds"]
    lines = [
        f"featcache reaches {reached} of what decoding and inference allow; "
        f"building the network the first time took {first:.1f} s"
    ]
    lines += [f"{side} cannot be run here: {reason}" for side, reason in result["not_available"].items()]
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.extraction", description=__doc__)
    add = parser.add_argument
    add("--photos", type=Path, help="a folder of class folders (default: the shared photos, else generated)")
    add("--count", action="append", default=[], metavar="[NAME=]N", help="photos, for one or all; repeatable")
    add("--pairs", type=int, default=3, help="rounds in which every side is run once")
    add("--only", action="append", default=[], metavar="NAME", help="only this configuration; repeatable")
    add("--peer", action="append", choices=PEERS, help="against this; repeatable (default: the two of Keras)")
    add(
        "--python",
        action="append",
        type=_peer_and_program,
        default=[],
        metavar="PEER=PROGRAM",
        help="run a peer with another environment's Python",
    )
    add("--quick", action="store_true", help="a smoke run: few photos, one round")
    return parser.parse_args(arguments)


def _peer_and_program(text: str) -> tuple[str, str]:
    peer, equals, program = text.partition("=")
    if not equals or peer not in PEERS:
        raise argparse.ArgumentTypeError(f"{text!r} is not PEER=PROGRAM; peers are {', '.join(PEERS)}")
    return peer, str(Path(program).absolute())


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    try:
        chosen = choose(configurations(shared_folder()), options.only, options.count, options.quick)
    except ValueError as error:
        sys.exit(f"benchmarks: {error}")
    peers = list(dict.fromkeys(options.peer or DEFAULT_PEERS))
    source = options.photos or default_photos()
    pairs = 1 if options.quick else options.pairs
    facts = machine()
    console().print(in_words(facts), highlight=False)
    results = []
    for one in chosen:
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(one, source, Path(folder), dict(options.python))
            results.append(summarize(bench, *take_turns(bench, peers, pairs)))
        console().print(table(results[-1]))
    photos = "generated, 500x375" if source is None else source.name
    saved = save(
        "extraction", {"machine": facts, "pairs": pairs, "photos": photos, "configurations": results}
    )
    console().print(f"written to {saved}")


if __name__ == "__main__":
    main()
