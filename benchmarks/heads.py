"""Training heads on features: featcache and its peers in turn, each in a fresh process.

python -m benchmarks.heads [--quick] [--only NAME] [--pairs 3] [--whole]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

from rich.table import Table

from benchmarks import heads_sweep, rounds
from benchmarks.heads_jobs import JOBS, Job, jobs
from benchmarks.machine import in_words, machine
from benchmarks.output import console, save
from benchmarks.processes import child

SIDES = ("keras", "featcache")
NAMES = (*(job.name for job in JOBS), heads_sweep.NAME)

Runs = dict[str, list[dict[str, Any]]]


def take_turns(job: Job, pairs: int, quick: bool) -> Runs:
    """Run both sides in turn, `pairs` times."""
    runs: Runs = {side: [] for side in SIDES}
    for number in range(pairs):
        for side, done in runs.items():
            console().print(f"{job.name}: round {number + 1} of {pairs}, {side}", style="dim")
            done.append(child("heads_side", side, job.name, *(["--quick"] if quick else [])))
    return runs


def summarize(job: Job, runs: Runs) -> dict[str, Any]:
    """Return a job's result, JSON-ready; the peer's seconds are those of all heads."""
    trained = {"keras": len(job.peer_heads), "featcache": len(job.heads)}
    traced, first = (_seconds(job, runs, trained, key) for key in ("seconds", "first"))
    return {
        "name": job.name,
        "title": job.title,
        "job": {**asdict(job), "heads": len(job.heads)},
        "bar": job.bar,
        "heads_trained": trained,
        "seconds": {side: rounds.spread(values) for side, values in traced.items()},
        "seconds_with_tracing": {side: rounds.spread(values) for side, values in first.items()},
        "ratio": rounds.ratios(traced["keras"], traced["featcache"]),
        "ratio_with_tracing": rounds.ratios(first["keras"], first["featcache"]),
        "accuracy": _accuracy(job, runs),
        "runs": runs,
    }


def _seconds(job: Job, runs: Runs, trained: dict[str, int], key: str) -> dict[str, list[float]]:
    heads = len(job.heads)
    return {side: [run[key] * heads / trained[side] for run in done] for side, done in runs.items()}


def _accuracy(job: Job, runs: Runs) -> dict[str, float]:
    """Return the mean validation accuracy of the heads that both sides trained."""
    both = {"keras": slice(None), "featcache": slice(None, None, job.every)}
    return {
        side: round(mean(value for run in done for value in run["accuracy"][both[side]]), 4)
        for side, done in runs.items()
    }


def table(result: dict[str, Any]) -> Table:
    """Return what a person looks at: a line per side."""
    shown = Table(
        title=result["title"], title_justify="left", caption=_caption(result), caption_justify="left"
    )
    shown.add_column("side")
    for heading in ("heads trained", "seconds", "range", "with tracing", "range", "validation accuracy"):
        shown.add_column(heading, justify="right")
    for side in SIDES:
        shown.add_row(
            side,
            str(result["heads_trained"][side]),
            *_in_seconds(result["seconds"][side]),
            *_in_seconds(result["seconds_with_tracing"][side]),
            f"{result['accuracy'][side]:.1%}",
        )
    return shown


def _in_seconds(spread: dict[str, Any]) -> tuple[str, str]:
    return f"{spread['median']:.2f}", f"{spread['min']:.2f}-{spread['max']:.2f}"


def _caption(result: dict[str, Any]) -> str:
    ratio, tracing = (_in_words(result[key]) for key in ("ratio", "ratio_with_tracing"))
    line = f"featcache is faster by {ratio}, with tracing by {tracing}; it should be by {result['bar']:g}×"
    heads, trained = result["job"]["heads"], result["heads_trained"]["keras"]
    if trained == heads:
        return line
    return (
        f"{line}\nkeras trained {trained} of {heads} heads; its seconds are theirs times {heads // trained}"
    )


def _in_words(ratio: dict[str, Any]) -> str:
    return f"{ratio['median']:.1f}× ({ratio['min']:.1f}-{ratio['max']:.1f})"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.heads", description=__doc__)
    add = parser.add_argument
    add("--only", action="append", choices=NAMES, help="only this; repeatable")
    add("--pairs", type=int, default=3, help="rounds in which every side is run once")
    add("--whole", action="store_true", help="the sweep's peer runs all trials, not a fraction of them")
    add("--quick", action="store_true", help="a smoke run: few rows, one round")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    pairs = 1 if options.quick else options.pairs
    only = options.only or NAMES
    facts = machine()
    console().print(in_words(facts), highlight=False)
    results = []
    for job in jobs(only, options.quick):
        results.append(summarize(job, take_turns(job, pairs, options.quick)))
        console().print(table(results[-1]))
    if heads_sweep.NAME in only:
        results.append(_sweep(pairs, options.quick, options.whole))
        console().print(heads_sweep.table(results[-1]))
    saved = save("heads", {"machine": facts, "pairs": pairs, "results": results})
    console().print(f"written to {saved}")


def _sweep(pairs: int, quick: bool, whole: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        sweep = heads_sweep.Sweep(Path(folder), quick, whole)
        return heads_sweep.summarize(sweep, [sweep.run(number) for number in range(pairs)])


if __name__ == "__main__":
    main()
