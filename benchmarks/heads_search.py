"""What the search over heads is measured on, and the peer's search, each in a process of its own.

- ``python -m benchmarks.heads_search prepare RECIPE OVERRIDES ARRAYS`` extracts the recipe's features into
  its cache and writes them to the file ARRAYS, for the peer; OVERRIDES is JSON.
- ``python -m benchmarks.heads_search peer ARRAYS DENSE CLASSICAL`` searches with so many trials of KerasTuner
  and of scikit-learn.

Both print one JSON line.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.side import print_line

# As in heads_sweep.toml.
EPOCHS, BATCH_SIZE = 10, 32

_FEW = 32


class Arrays(NamedTuple):
    """Features (n, d) float32 and labels (n,) to train on, and the same to measure on."""

    X: NDArray[np.float32]
    y: NDArray[np.int64]
    X_validation: NDArray[np.float32]
    y_validation: NDArray[np.int64]


def prepare(recipe: str, overrides: str, arrays: str) -> dict[str, Any]:
    from featcache import Recipe, extract

    raw = tomllib.loads(Path(recipe).read_text(encoding="utf-8"))
    del raw["sweep"]
    with extract(Recipe.parse(raw, json.loads(overrides))).open() as features:
        (X, y), (X_validation, y_validation) = (features[split].load() for split in ("train", "validation"))
    found = Arrays(X.astype(np.float32), y, X_validation.astype(np.float32), y_validation)
    np.savez(arrays, **found._asdict())
    return {"rows": len(y), "held_out": len(y_validation)}


def peer(arrays: str, dense: str, classical: str) -> dict[str, Any]:
    """Search with both libraries, one after the other; a search of a few rows before it is not timed.

    Without that the imports and the start of the workers would be multiplied with the trials.
    """
    with np.load(arrays) as loaded:
        data = Arrays(**loaded)
    few = Arrays(**{name: column[:: max(1, len(column) // _FEW)] for name, column in data._asdict().items()})
    for search in (keras_tuner_search, scikit_learn_search):
        search(few, 2)
    return {
        "dense": _searched(keras_tuner_search, data, int(dense)),
        "classical": _searched(scikit_learn_search, data, int(classical)),
    }


def _searched(search: Callable[[Arrays, int], float], data: Arrays, trials: int) -> dict[str, Any]:
    started = time.perf_counter()
    best = search(data, trials)
    seconds = time.perf_counter() - started
    return {"trials": trials, "seconds": round(seconds, 4), "accuracy": round(best, 4)}


def keras_tuner_search(data: Arrays, trials: int) -> float:
    """KerasTuner's RandomSearch as in its guide; a trial's score is that of its best epoch."""
    import keras_tuner

    with tempfile.TemporaryDirectory() as folder:
        tuner = keras_tuner.RandomSearch(
            _hypermodel(data.X.shape[1]), "val_accuracy", max_trials=trials, seed=0, directory=folder
        )
        tuner.search(
            data.X,
            data.y,
            epochs=EPOCHS,
            batch_size=BATCH_SIZE,
            validation_data=(data.X_validation, data.y_validation),
            verbose=0,
        )
        (best,) = tuner.oracle.get_best_trials(1)
    return float(best.score)


def _hypermodel(features: int) -> Callable[[Any], Any]:
    import keras
    from keras import layers

    def build(hp: Any) -> Any:
        penalty = keras.regularizers.L2(hp.Float("l2", 1e-6, 1e-2, sampling="log"))
        units = hp.Choice("units", [0, 64, 128, 256])
        model = keras.Sequential([keras.Input((features,))])
        if units:
            model.add(layers.Dense(units, activation="relu", kernel_regularizer=penalty))
        model.add(layers.Dropout(hp.Float("dropout", 0.0, 0.6, step=0.1)))
        model.add(layers.Dense(1, activation="sigmoid", kernel_regularizer=penalty))
        optimizer = keras.optimizers.Adam(hp.Float("learning_rate", 1e-4, 1e-2, sampling="log"))
        model.compile(optimizer=optimizer, loss="binary_crossentropy", metrics=["accuracy"])
        return model

    return build


def scikit_learn_search(data: Arrays, trials: int) -> float:
    """RandomizedSearchCV over two classifiers; PredefinedSplit makes it use the given validation rows."""
    from scipy.stats import loguniform
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import PredefinedSplit, RandomizedSearchCV
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    space = [
        {"classifier": [LogisticRegression(max_iter=1000)], "classifier__C": loguniform(1e-4, 1e2)},
        {
            "classifier": [SVC()],
            "classifier__C": loguniform(1e-2, 1e3),
            "classifier__gamma": loguniform(1e-5, 1e-1),
        },
    ]
    fold = np.repeat([-1, 0], [len(data.y), len(data.y_validation)])
    search = RandomizedSearchCV(
        Pipeline([("scale", StandardScaler()), ("classifier", SVC())]),
        space,
        n_iter=trials,
        scoring="accuracy",
        cv=PredefinedSplit(fold),
        n_jobs=2,
        refit=False,
        random_state=0,
    )
    search.fit(np.concatenate([data.X, data.X_validation]), np.concatenate([data.y, data.y_validation]))
    return float(search.cv_results_["mean_test_score"].max())


WORK: dict[str, Callable[..., dict[str, Any]]] = {"prepare": prepare, "peer": peer}


def main() -> None:
    what, *arguments = sys.argv[1:]
    print_line(WORK[what](*arguments))


if __name__ == "__main__":
    main()
