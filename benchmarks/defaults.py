"""What people get without a recipe: the default heads and how they are chosen, against those before.

    python -m benchmarks.defaults --sets SETS --draws 10

Both sides train on the same photos with ``train_heads``, which draws the split and chooses the best head;
that head is scored on the rest of the set.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.machine import in_words, machine
from benchmarks.output import console, save
from benchmarks.sets import SETS, FeatureSet, feature_set, recipe
from featcache.evaluation.scoring import score_head
from featcache.training import train_heads

BEFORE: dict[str, Any] = {
    "heads": [
        {"type": "LogisticRegression", "C": 0.1, "max_iter": 1000},
        {"type": "dense", "units": [], "epochs": 20, "learning_rate": 1e-3, "early_stopping": False},
        {
            "type": "dense",
            "units": [256],
            "dropout": 0.5,
            "epochs": 20,
            "learning_rate": 1e-3,
            "early_stopping": False,
        },
    ],
    "selection": {"metric": "accuracy", "method": "validation"},
}
"""Default heads and selection before heads were compared by log loss."""

SIDES: dict[str, dict[str, Any]] = {"before": BEFORE, "now": {}}

SIZES = (40, 200, 0)
"""Photos to train and choose on; 0 is all, six tenths of the set."""

_ALL = 0.6
_FEWEST = 3  # of a class in a pool
_FEWEST_EXPECTED = 4
_MOST_TEST = 1500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=Path, required=True, help="folder of the sets; made where missing")
    parser.add_argument("--draws", type=int, default=10, help="at least 2")
    parser.add_argument("--only", action="append", choices=SETS, help="a set; may be repeated")
    parser.add_argument("--size", action="append", type=int, choices=SIZES, help="0 is all; may be repeated")
    parser.add_argument("--journal", type=Path, help="where draws are kept; default: a new file")
    arguments = parser.parse_args()
    facts = machine()
    with tempfile.TemporaryDirectory() as work:
        journal = arguments.journal or Path(work) / "defaults.jsonl"
        _run(arguments, journal)
        summary = summarize(read(journal))
    console().print(table(summary))
    console().print(in_words(facts))
    console().print(f"written: {save('defaults', {'machine': facts, **summary})}")


def _run(arguments: argparse.Namespace, journal: Path) -> None:
    """Compute the draws that the journal lacks, small sets first."""
    done = {_key(one) for one in read(journal)} if journal.exists() else set()
    wanted = [
        (name, size, draw)
        for draw in range(arguments.draws)
        for size in arguments.size or SIZES
        for name in arguments.only or SETS
    ]
    loaded = cache(lambda name: feature_set(name, arguments.sets))
    with journal.open("a", encoding="utf-8") as file:
        for name, size, draw in wanted:
            if (name, size, draw) in done or not fits(loaded(name), size):
                continue
            one = {
                "set": name,
                "size": size,
                "draw": draw,
                **_compare(loaded(name), size, draw, arguments.sets),
            }
            file.write(json.dumps(one) + "\n")
            file.flush()
            console().print(f"{name}, {size or 'all'} photos, draw {draw}: {_in_words(one)}")


def fits(found: FeatureSet, size: int) -> bool:
    """Whether a set has so many photos, and a pool of them some of every class."""
    rarest = np.bincount(found.y).min() / len(found.y)
    return size < _ALL * len(found.y) and (not size or rarest * size >= _FEWEST_EXPECTED)


def draw_pool(y: NDArray[np.int64], photos: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of a pool, with at least 3 of every class, and rows to test on.

    Raises
    ------
    ValueError
        No such pool was found.
    """
    random = np.random.default_rng([seed, photos])
    for _ in range(1000):
        order = random.permutation(len(y))
        if np.bincount(y[order[:photos]], minlength=y.max() + 1).min() >= _FEWEST:
            return order[:photos], order[photos:][:_MOST_TEST]
    raise ValueError(f"{photos} photos are too few for {y.max() + 1} classes")


def _compare(found: FeatureSet, size: int, draw: int, folder: Path) -> dict[str, Any]:
    pool, test = draw_pool(found.y, size or round(_ALL * len(found.y)), draw)
    photos = [(found.paths[row], found.classes[found.y[row]]) for row in pool]
    return {side: _side(found, photos, test, folder, sections) for side, sections in SIDES.items()}


def _side(
    found: FeatureSet,
    photos: Sequence[tuple[str, str]],
    test: NDArray[np.int64],
    folder: Path,
    sections: Mapping[str, Any],
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as work:
        started = time.monotonic()
        trained = train_heads(recipe(photos, folder, Path(work), **sections))
        seconds = time.monotonic() - started
        head = trained.models[trained.best].head
    scores = score_head(head, found.X[test], found.y[test])
    return {
        "best": trained.best,
        "log_loss": scores["log_loss"],
        "accuracy": scores["accuracy"],
        "seconds": round(seconds, 2),
    }


def _in_words(one: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{side} {one[side]['best']} {one[side]['log_loss']:.3f} {one[side]['accuracy']:.2%} "
        f"{one[side]['seconds']:.1f} s"
        for side in SIDES
    )


def read(journal: Path) -> list[dict[str, Any]]:
    """Return the draws of a journal."""
    return [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]


def _key(one: Mapping[str, Any]) -> tuple[str, int, int]:
    return one["set"], one["size"], one["draw"]


def summarize(draws: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the means of both sides by set and size, and over all of these.

    ``log_loss_ratio`` is the mean log loss now over that before; ``accuracy_difference`` is in
    points, with its standard error over the draws.
    """
    cases: dict[str, list[Mapping[str, Any]]] = {}
    for one in draws:
        cases.setdefault(f"{one['set']} {one['size'] or 'all'}", []).append(one)
    rows = {name: _means(found) for name, found in cases.items()}
    before, now = (np.mean([row[side]["log_loss"] for row in rows.values()]) for side in SIDES)
    return {"cases": rows, "log_loss_ratio": round(float(now / before), 4)}


def _means(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    means: dict[str, Any] = {
        side: {
            name: round(float(np.mean([one[side][name] for one in found])), 5)
            for name in ("log_loss", "accuracy", "seconds")
        }
        for side in SIDES
    }
    differences = np.array([one["now"]["accuracy"] - one["before"]["accuracy"] for one in found])
    error = differences.std(ddof=1) / len(found) ** 0.5
    return means | {
        "draws": len(found),
        "log_loss_ratio": round(means["now"]["log_loss"] / means["before"]["log_loss"], 4),
        "accuracy_difference": round(float(differences.mean()), 5),
        "accuracy_error": round(float(error), 5),
    }


def table(summary: Mapping[str, Any]) -> Table:
    """Return the table of all sets and sizes."""
    shown = Table(
        *("photos", "draws", "log loss before", "now", "ratio", "accuracy before", "now", "difference"),
        *("seconds before", "now"),
        title=f"Mean log loss of all: {summary['log_loss_ratio']:.1%} of that before",
    )
    for name, one in summary["cases"].items():
        before, now = one["before"], one["now"]
        shown.add_row(
            name,
            str(one["draws"]),
            f"{before['log_loss']:.3f}",
            f"{now['log_loss']:.3f}",
            f"{one['log_loss_ratio']:.2f}",
            f"{before['accuracy']:.2%}",
            f"{now['accuracy']:.2%}",
            f"{100 * one['accuracy_difference']:+.2f} ± {100 * one['accuracy_error']:.2f}",
            f"{before['seconds']:.1f}",
            f"{now['seconds']:.1f}",
        )
    return shown


if __name__ == "__main__":
    main()
