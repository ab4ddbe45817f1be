"""The search over heads of all kinds: ``featcache sweep`` beside KerasTuner and RandomizedSearchCV."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from benchmarks import rounds
from benchmarks.configurations import QUICK_COUNT, configurations
from benchmarks.output import console
from benchmarks.photos import ROOT, default_photos, generate, provide, shared_folder
from benchmarks.processes import child, timed

NAME = "sweep"
TRIALS, QUICK_TRIALS = 200, 8
# Of KerasTuner and scikit-learn together; its time is that of its share of the trials.
PEER_TRIALS = 40

PACKAGES = ("keras-tuner", "scikit-learn")

RECIPE = ROOT / "benchmarks" / "heads_sweep.toml"


class Sweep:
    """Photos, their features in a cache and as arrays, and the way to run each side on them.

    Parameters
    ----------
    folder : Path
        Everything is written here.
    quick : bool
        A smoke run: few photos and trials.
    whole : bool
        The peer runs as many trials as featcache, which takes it many minutes.
    """

    def __init__(self, folder: Path, quick: bool, whole: bool) -> None:
        self.trials = QUICK_TRIALS if quick else TRIALS
        fraction = self.trials // 2 if quick else PEER_TRIALS
        self.peer_trials = self.trials if whole else fraction
        self._folder, self._arrays = folder, folder / "arrays.npz"
        _photos(folder, QUICK_COUNT if quick else 2000)
        # a run folder of its own: featcache may go on with a sweep that it finds
        overrides = json.dumps(self._overrides("prepared"))
        self.facts = child("heads_search", "prepare", RECIPE, overrides, self._arrays)

    def run(self, number: int) -> dict[str, dict[str, Any]]:
        """Run the peer and then featcache."""
        console().print(f"{NAME}: round {number + 1}, peer", style="dim")
        theirs = self._peer()
        console().print(f"{NAME}: round {number + 1}, featcache", style="dim")
        return {"peer": theirs, "featcache": self._featcache(f"run-{number}")}

    def _peer(self) -> dict[str, Any]:
        each = self.peer_trials // 2
        done = child("heads_search", "peer", self._arrays, each, each)
        searches = (done["dense"], done["classical"])
        scale = self.trials / self.peer_trials
        return {
            **done,
            "seconds": round(scale * sum(search["seconds"] for search in searches), 3),
            "accuracy": max(search["accuracy"] for search in searches),
        }

    def _featcache(self, run: str) -> dict[str, Any]:
        overrides = self._overrides(run) | {"sweep.trials": self.trials}
        given = [word for key, value in overrides.items() for word in ("--set", f"{key}={json.dumps(value)}")]
        command = [sys.executable, "-m", "featcache.cli", "sweep", str(RECIPE), *given, "--json"]
        output, seconds = timed(command)
        printed = json.loads(output)
        return {
            "seconds": round(seconds, 3),
            "accuracy": best_accuracy(printed, self.trials),
            "accuracy_of_as_many": best_accuracy(printed, self.peer_trials),
        }

    def _overrides(self, run: str) -> dict[str, Any]:
        base = next(one for one in configurations(shared_folder()) if one.name == "mobilenetv2_160")
        return {
            "data.train": str(self._folder / "train"),
            "data.validation": str(self._folder / "validation"),
            "base.weights": base.weights,
            "cache": str(self._folder / "cache"),
            "run": str(self._folder / run),
        }


def best_accuracy(printed: dict[str, Any], trials: int) -> float:
    """Return the best validation accuracy of the first `trials`.

    Parameters
    ----------
    printed : dict
        What ``featcache sweep --json`` printed.
    trials : int
    """
    entries = printed["leaderboard"]["entries"]
    return max(float(entry["validation"]["accuracy"]) for entry in entries if entry["trial"] < trials)


def _photos(folder: Path, count: int) -> None:
    """Put photos into ``train`` and half as many into ``validation``; generated ones where there are none."""
    source = default_photos()
    if source is None:
        generate(folder / "train", count, (500, 375))
        generate(folder / "validation", count // 2, (500, 375), first=count)
    else:
        provide(source, count, folder / "train")
        provide(source.with_name("validation"), count // 2, folder / "validation")


def summarize(sweep: Sweep, done: Sequence[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Return the result, JSON-ready."""
    seconds = {side: [run[side]["seconds"] for run in done] for side in ("peer", "featcache")}
    return {
        "name": NAME,
        "trials": sweep.trials,
        "peer_trials": sweep.peer_trials,
        "rows": sweep.facts["rows"],
        "held_out": sweep.facts["held_out"],
        "seconds": {side: rounds.spread(values) for side, values in seconds.items()},
        "ratio": rounds.ratios(seconds["peer"], seconds["featcache"]),
        "versions": {package: version(package) for package in PACKAGES},
        "runs": list(done),
    }


def table(result: dict[str, Any]) -> Table:
    """Return what a person looks at: a line per side."""
    title = (
        f"{NAME}: {result['trials']} trials of mixed heads, MobileNetV2 at 160 px, "
        f"{result['rows']:,} photos, {result['held_out']:,} for validation"
    )
    shown = Table(title=title, title_justify="left", caption=_caption(result), caption_justify="left")
    shown.add_column("side")
    for heading in ("seconds", "range", "best accuracy", f"of {result['peer_trials']} trials"):
        shown.add_column(heading, justify="right")
    _add(shown, result, "peer", "KerasTuner and scikit-learn", ("", "accuracy"))
    _add(shown, result, "featcache", "featcache sweep", ("accuracy", "accuracy_of_as_many"))
    return shown


def _add(shown: Table, result: dict[str, Any], side: str, label: str, keys: Sequence[str]) -> None:
    seconds = result["seconds"][side]
    best = [f"{median(run[side][key] for run in result['runs']):.1%}" if key else "" for key in keys]
    shown.add_row(label, f"{seconds['median']:.1f}", f"{seconds['min']:.1f}-{seconds['max']:.1f}", *best)


def _caption(result: dict[str, Any]) -> str:
    ratio, peer_trials = result["ratio"], result["peer_trials"]
    faster = f"featcache is faster by {ratio['median']:.1f}× ({ratio['min']:.1f}-{ratio['max']:.1f})"
    if peer_trials == result["trials"]:
        return faster
    scale = result["trials"] / peer_trials
    return f"{faster}; the peer ran {peer_trials} trials; its seconds are theirs times {scale:g}"
