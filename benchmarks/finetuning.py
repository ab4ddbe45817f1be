"""Fine-tuning from cached features beside Keras's through the whole network, in turn, in fresh processes.

python -m benchmarks.finetuning [--quick] [--only NAME] [--pairs 3]
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks import rounds
from benchmarks.finetuning_jobs import JOBS, QUICK_ROWS, Job, weights_of
from benchmarks.machine import in_words, machine
from benchmarks.output import console, save
from benchmarks.photos import ROOT, default_photos, generate, provide, shared_folder
from benchmarks.processes import child, timed

WHOLE = "whole_job"
NAMES = (*(job.name for job in JOBS), WHOLE)
RECIPE = ROOT / "benchmarks" / "finetuning.toml"
# What the design aims at: the frozen half, and all of it.
BARS = {"frozen": 10.0, "whole": 3.0}

Runs = dict[str, list[dict[str, Any]]]


def epochs(job: Job, pairs: int, quick: bool, folder: Path) -> dict[str, Any]:
    """Time epochs of both sides in turn; the photos are decoded before."""
    pixels, weights = folder / f"{job.name}.npz", weights_of(job, shared_folder())
    _decode(job, QUICK_ROWS if quick else job.rows + job.held_out, folder / job.name, pixels)
    precision = "bf16" if machine()["has_bf16"] else "f32"
    sides = ["keras", *(["featcache f32", "featcache bf16"] if precision == "bf16" else ["featcache f32"])]
    runs: Runs = {side: [] for side in sides}
    for number in range(pairs):
        for side, done in runs.items():
            console().print(f"{job.name}: round {number + 1} of {pairs}, {side}", style="dim")
            name, _, computes = side.partition(" ")
            done.append(child("finetuning_side", name, job.name, pixels, weights, computes or "f32"))
    return summarize(job, runs)


def _decode(job: Job, count: int, folder: Path, pixels: Path) -> None:
    from featcache.featurize import decode_photos
    from featcache.recipe import BaseSettings

    provide(default_photos(), count, folder)
    paths = sorted(str(path) for path in folder.rglob("*") if path.is_file())
    order = np.random.default_rng(0).permutation(len(paths))
    decoded = decode_photos([paths[at] for at in order], BaseSettings(image_size=job.image_size))
    classes = sorted({Path(path).parent.name for path in paths})
    labels = np.array([classes.index(Path(paths[at]).parent.name) for at in order], np.int32)
    np.savez(pixels, pixels=decoded, labels=labels)


def summarize(job: Job, runs: Runs) -> dict[str, Any]:
    """Return a job's result, JSON-ready: milliseconds per photo and epoch, and ratios to the peer."""
    each = {side: [1000 * run["seconds"] / run["images"] for run in done] for side, done in runs.items()}
    return {
        "name": job.name,
        "title": job.title,
        "milliseconds": {side: rounds.spread(values) for side, values in each.items()},
        "ratio": {side: rounds.ratios(each["keras"], each[side]) for side in each if side != "keras"},
        "bar": {"featcache f32": job.bar, "featcache bf16": job.bar_bf16},
        "runs": runs,
    }


def whole(pairs: int, quick: bool, folder: Path) -> dict[str, Any]:
    """Run source 3's job, without augmentation, as whole processes from nothing to the end."""
    photos = _data(folder / "photos", quick)
    weights = weights_of(JOBS[-1], shared_folder())
    runs: Runs = {"script": [], "featcache heads": [], "featcache finetune": []}
    for number in range(pairs):
        for side, done in runs.items():
            console().print(f"{WHOLE}: round {number + 1} of {pairs}, {side}", style="dim")
            done.append(_whole_side(side, photos, weights, 1 if quick else 10, folder / "featcache"))
    script, heads, finetune = runs.values()
    frozen = [run["frozen_seconds"] for run in script]
    return {
        "name": WHOLE,
        "runs": runs,
        "frozen": {
            "script": rounds.spread(frozen),
            "featcache": rounds.spread([run["seconds"] for run in heads]),
            "ratio": rounds.ratios(frozen, [run["seconds"] for run in heads]),
        },
        "whole": {
            "script": rounds.spread([run["seconds"] for run in script]),
            "featcache": rounds.spread([run["seconds"] for run in finetune]),
            "ratio": rounds.ratios([run["seconds"] for run in script], [run["seconds"] for run in finetune]),
        },
        "accuracy": {
            "script": [[run["frozen_accuracy"][-1], run["accuracy"][-1]] for run in script],
            "featcache": [
                [one["accuracy"], other["accuracy"]] for one, other in zip(heads, finetune, strict=True)
            ],
        },
    }


def _data(folder: Path, quick: bool) -> Path:
    source = default_photos()
    if source is not None and not quick:
        return source.parent
    for split, count in (("train", QUICK_ROWS), ("validation", QUICK_ROWS // 2)):
        generate(folder / split, count, (500, 375), first=0 if split == "train" else 10_000)
    return folder


def _whole_side(side: str, photos: Path, weights: str, count: int, folder: Path) -> dict[str, Any]:
    if side == "script":
        return child("finetuning_script", photos / "train", photos / "validation", weights, count)
    shutil.rmtree(folder, ignore_errors=True)  # nothing is in the store, not even the converted network
    settings = {
        "data.train": str(photos / "train"),
        "data.validation": str(photos / "validation"),
        "base.weights": weights,
        "heads.linear.epochs": count,
        "finetune.epochs": count,
        "cache": str(folder / "cache"),
        "run": str(folder / "run"),
    }
    given = [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    stage = side.removeprefix("featcache ")
    output, seconds = timed([sys.executable, "-m", "featcache.cli", stage, str(RECIPE), *given, "--json"])
    printed = json.loads(output)
    scored = printed["model"] if stage == "finetune" else printed["heads"][0]
    return {"seconds": round(seconds, 2), "accuracy": scored["validation"]["accuracy"]}


def table(result: dict[str, Any]) -> Table:
    """Return what a person looks at."""
    return _whole_table(result) if result["name"] == WHOLE else _epochs_table(result)


def _epochs_table(result: dict[str, Any]) -> Table:
    shown = _table(result["title"], "side", "ms per photo and epoch", "range", "faster by", "range", "bar")
    for side, spread in result["milliseconds"].items():
        ratio = result["ratio"].get(side)
        compared = (*_in_words(ratio, "×"), f"{result['bar'][side]:g}×") if ratio else ("", "", "")
        shown.add_row(side, *_in_words(spread), *compared)
    return shown


def _whole_table(result: dict[str, Any]) -> Table:
    title = "whole processes, MobileNetV2 at 160 px, from JPEG files and an empty store"
    shown = _table(title, "part", "script, s", "range", "featcache, s", "range", "faster by", "range", "bar")
    for part, bar in BARS.items():
        of_part = result[part]
        shown.add_row(
            part,
            *_in_words(of_part["script"]),
            *_in_words(of_part["featcache"]),
            *_in_words(of_part["ratio"], "×"),
            f"{bar:g}×",
        )
    accuracy = {
        side: ", ".join(f"{a:.1%} → {b:.1%}" for a, b in pairs) for side, pairs in result["accuracy"].items()
    }
    shown.caption = "validation accuracy, frozen → fine-tuned: " + "; ".join(
        f"{side} {text}" for side, text in accuracy.items()
    )
    shown.caption_justify = "left"
    return shown


def _table(title: str, first: str, *headings: str) -> Table:
    shown = Table(title=title, title_justify="left")
    shown.add_column(first)
    for heading in headings:
        shown.add_column(heading, justify="right")
    return shown


def _in_words(spread: dict[str, Any], unit: str = "") -> tuple[str, str]:
    return f"{spread['median']:.1f}{unit}", f"{spread['min']:.1f}-{spread['max']:.1f}"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.finetuning", description=__doc__)
    add = parser.add_argument
    add("--only", action="append", choices=NAMES, help="only this; repeatable")
    add("--pairs", type=int, default=3, help="rounds in which every side is run once")
    add("--quick", action="store_true", help="a smoke run: few photos, one round")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    pairs = 1 if options.quick else options.pairs
    only = options.only or NAMES
    facts = machine()
    console().print(in_words(facts), highlight=False)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for job in (job for job in JOBS if job.name in only):
            results.append(epochs(job, pairs, options.quick, Path(folder)))
            console().print(table(results[-1]))
        if WHOLE in only:
            results.append(whole(pairs, options.quick, Path(folder)))
            console().print(table(results[-1]))
    saved = save("finetuning", {"machine": facts, "pairs": pairs, "results": results})
    console().print(f"written to {saved}")


if __name__ == "__main__":
    main()
