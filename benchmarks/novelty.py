"""How well novelty tells photos of other classes, and how often it and conformal sets err on known ones.

    python -m benchmarks.novelty --folder SETS

reads the sets that ``python -m benchmarks.sets --folder SETS`` wrote. The head is a logistic regression.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

from featcache.evaluation.conformal import ConformalSets
from featcache.evaluation.novelty import Novelty

LEVEL, SET_LEVEL = 0.05, 0.1
_UNSEEN = 0.3


class Rows(NamedTuple):
    """Features and labels."""

    X: NDArray[np.float32]
    y: NDArray[np.int64]


def divide(rows: Rows, seed: int) -> tuple[Rows, Rows]:
    """Return rows to fit on and unseen ones, of each class alike."""
    X, unseen_X, y, unseen_y = train_test_split(*rows, test_size=_UNSEEN, random_state=seed, stratify=rows.y)
    return Rows(X, y), Rows(unseen_X, unseen_y)


def fitted_head(rows: Rows) -> Any:
    """Return the head whose probabilities are compared with novelty."""
    return make_pipeline(Normalizer(), LogisticRegression(C=100, max_iter=200)).fit(*rows)


def rejected(rows: Rows, seed: int) -> float:
    """Return the share of unseen photos of known classes that are rejected at level 0.05."""
    known, unseen = divide(rows, seed)
    return float((Novelty.fit(*known, seed=seed).p_values(unseen.X) < LEVEL).mean())


def coverage(rows: Rows, seed: int) -> float:
    """Return how often the conformal set at level 0.1 holds the true class of unseen photos."""
    known, unseen = divide(rows, seed)
    train, held_out = divide(known, seed)
    head = fitted_head(train)
    sets = ConformalSets.of(head.predict_proba(held_out.X), held_out.y)
    return float(
        sets.sets(head.predict_proba(unseen.X), SET_LEVEL)[np.arange(len(unseen.y)), unseen.y].mean()
    )


def left_out(rows: Rows, seed: int) -> Iterator[tuple[float, float]]:
    """Leave out each class; give the AUROC of novelty, and of one minus the largest probability."""
    for label in np.unique(rows.y):
        others = rows.y != label
        known, unseen = divide(Rows(rows.X[others], np.unique(rows.y[others], return_inverse=True)[1]), seed)
        novelty, head = Novelty.fit(*known, seed=seed), fitted_head(known)
        asked = np.concatenate([unseen.X, rows.X[~others]])
        is_new = np.repeat([0, 1], [len(unseen.y), int((~others).sum())])
        doubt = 1 - head.predict_proba(asked).max(axis=1)
        yield (
            float(roc_auc_score(is_new, 1 - novelty.p_values(asked))),
            float(roc_auc_score(is_new, doubt)),
        )


def cost(rows: Rows) -> tuple[float, float]:
    """Return the seconds of a fit on all rows, and the milliseconds of a photo in batches of 32."""
    started = time.perf_counter()
    novelty = Novelty.fit(*rows)
    fit = time.perf_counter() - started
    batches = [rows.X[at : at + 32] for at in range(0, min(len(rows.X), 960), 32)]
    novelty.p_values(batches[0])
    started = time.perf_counter()
    for batch in batches:
        novelty.p_values(batch)
    return fit, 1000 * (time.perf_counter() - started) / sum(map(len, batches))


def spread(measure: Callable[[Rows, int], float], rows: Rows, draws: int) -> str:
    """Return mean and standard deviation over the draws, in percent."""
    found = [100 * measure(rows, seed) for seed in range(draws)]
    return f"{np.mean(found):.1f} ± {np.std(found):.1f}"


def report(name: str, rows: Rows, draws: int) -> str:
    """Return a line of the table of ``docs/novelty.md``."""
    classes = len(np.unique(rows.y))
    pairs = [pair for seed in range(draws) for pair in left_out(rows, seed)] if classes > 2 else []
    auroc = [f"{np.mean(one):.3f}" for one in zip(*pairs, strict=True)] or ["–", "–"]
    fit, photo = cost(rows)
    cells = [name, f"{len(rows.y):,} / {classes}", spread(rejected, rows, draws), *auroc]
    cells += [spread(coverage, rows, draws), f"{fit:.2f} s", f"{photo:.3f} ms"]
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=10)
    options = parser.parse_args(arguments)
    for path in sorted(options.folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as kept:
            rows = Rows(kept["X"], kept["y"])
        print(report(path.stem, rows, options.draws), flush=True)


if __name__ == "__main__":
    main()
