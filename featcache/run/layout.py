"""Where a run's files are: every file name of a run stands here and nowhere else.

RUN/features.h5              the photos' features, by split
RUN/heads.json               the trained heads, their scores, and which is the best
RUN/models/HEAD/             a whole model: model.json and the head
RUN/curves/HEAD.png          learning curves
RUN/out_of_fold/HEAD.csv     out-of-fold predictions
RUN/exports/HEAD/FORMAT/     the model in another format
RUN/sweep/                   the journal and the result of a search
RUN/finetune/                the boundary's features, checkpoints, learning curves
"""

from __future__ import annotations

from pathlib import Path

FEATURE_FILE = "features.h5"
HEADS_FILE = "heads.json"
MODELS_FOLDER = "models"
MODEL_FILE = "model.json"
SWEEP_FOLDER = "sweep"
FINETUNE_FOLDER = "finetune"

FINETUNED = "finetuned"
SWEEP_BEST = "sweep-best"
RESERVED_NAMES = frozenset({FINETUNED, SWEEP_BEST})
"""Names of models that other stages write: no head of a recipe may have them."""


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
