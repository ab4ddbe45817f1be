"""Where a run's files are: every file name of a run stands here and nowhere else.

RUN/features.h5              the photos' features, by split
RUN/origin.json              of which photos and base the results are
RUN/extraction.json          what extraction did and where its time went
RUN/heads.json               the trained heads, their scores, and which is the best
RUN/predictions.npz          every head's predictions on validation, or out of fold, with the photos' digests
RUN/models/HEAD/             a whole model: model.json and the head
RUN/curves/HEAD.png          learning curves over the epochs
RUN/learning_curve.json      the default head's scores by number of training photos, and learning_curve.png
RUN/out_of_fold/HEAD.csv     out-of-fold predictions
RUN/exports/HEAD/FORMAT/     the model in another format
RUN/sweep/                   journal.log, leaderboard.json and leaderboard.csv of a search
RUN/finetune/                the boundary's features.h5 and extraction.json, checkpoints, history.json
"""

from __future__ import annotations

from pathlib import Path

from featcache.recipe.names import FINETUNED, RESERVED_NAMES, SWEEP_BEST

__all__ = [
    "EXTRACTION_FILE",
    "FEATURE_FILE",
    "FINETUNED",
    "FINETUNE_FOLDER",
    "HEADS_FILE",
    "HISTORY_FILE",
    "JOURNAL_FILE",
    "LEADERBOARD_FILE",
    "LEADERBOARD_TABLE",
    "LEARNING_CURVE_FILE",
    "LEARNING_CURVE_PICTURE",
    "MODELS_FOLDER",
    "MODEL_FILE",
    "ORIGIN_FILE",
    "PREDICTIONS_FILE",
    "RESERVED_NAMES",
    "SWEEP_BEST",
    "SWEEP_FOLDER",
    "curves_file",
    "export_folder",
    "model_folder",
    "out_of_fold_file",
    "run_of_model",
]

FEATURE_FILE = "features.h5"
EXTRACTION_FILE = "extraction.json"
ORIGIN_FILE = "origin.json"
HEADS_FILE = "heads.json"
PREDICTIONS_FILE = "predictions.npz"
MODELS_FOLDER = "models"
MODEL_FILE = "model.json"
LEARNING_CURVE_FILE = "learning_curve.json"
LEARNING_CURVE_PICTURE = "learning_curve.png"
SWEEP_FOLDER = "sweep"
FINETUNE_FOLDER = "finetune"

HISTORY_FILE = "history.json"
JOURNAL_FILE = "journal.log"
LEADERBOARD_FILE = "leaderboard.json"
LEADERBOARD_TABLE = "leaderboard.csv"


def model_folder(run: Path, head: str) -> Path:
    """Return the folder of a head's model."""
    return run / MODELS_FOLDER / head


def run_of_model(folder: Path) -> Path | None:
    """Return the run that a model's folder belongs to, or None where it stands alone."""
    return folder.parent.parent if folder.parent.name == MODELS_FOLDER else None


def curves_file(run: Path, head: str) -> Path:
    """Return where a head's learning curves are drawn."""
    return run / "curves" / f"{head}.png"


def out_of_fold_file(run: Path, head: str) -> Path:
    """Return where a head's out-of-fold predictions are written."""
    return run / "out_of_fold" / f"{head}.csv"


def export_folder(model: Path, output_format: str) -> Path:
    """Return where a model is exported to: in its run, or beside a model's folder that stands alone."""
    run = run_of_model(model.absolute())
    exports = model.with_name(f"{model.name}-export") if run is None else run / "exports" / model.name
    return exports / output_format
