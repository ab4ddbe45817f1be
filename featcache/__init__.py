"""featcache: image classifiers in seconds on a CPU.

Photos go through a frozen network once; every classifier, every setting and every new label after that
works on the stored features. The public names below are imported when they are first used, so that
``import featcache`` costs nothing.

>>> import featcache as fc
>>> recipe = fc.Recipe.load("photos")            # a folder of photos, or a TOML file
>>> X, y = fc.extract(recipe)["train"].load()    # doctest: +SKIP
>>> fc.train_heads(recipe).best                  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featcache.errors import FeatcacheError as FeatcacheError
    from featcache.evaluating.stage import Evaluation as Evaluation
    from featcache.evaluating.stage import evaluate as evaluate
    from featcache.exporting.stage import Export as Export
    from featcache.exporting.stage import export as export
    from featcache.extraction.stage import Extraction as Extraction
    from featcache.extraction.stage import extract as extract
    from featcache.finetuning.stage import finetune as finetune
    from featcache.heads.dense.head import DenseHead as DenseHead
    from featcache.heads.dense.stack import fit_together as fit_together
    from featcache.heads.keras_head import KerasHead as KerasHead
    from featcache.model import Model as Model
    from featcache.recipe import Recipe as Recipe
    from featcache.report.grid import prediction_grid as prediction_grid
    from featcache.report.plots import learning_curves as learning_curves
    from featcache.search.sweep import run_sweep as run_sweep
    from featcache.store.feature_file import Features as Features
    from featcache.store.packing import pack as pack
    from featcache.training import train_heads as train_heads
    from featcache.transformer import FeatureExtractor as FeatureExtractor

_HOMES = {
    "DenseHead": "heads.dense.head",
    "Evaluation": "evaluating.stage",
    "Export": "exporting.stage",
    "Extraction": "extraction.stage",
    "FeatcacheError": "errors",
    "FeatureExtractor": "transformer",
    "Features": "store.feature_file",
    "KerasHead": "heads.keras_head",
    "Model": "model",
    "Recipe": "recipe",
    "evaluate": "evaluating.stage",
    "export": "exporting.stage",
    "extract": "extraction.stage",
    "finetune": "finetuning.stage",
    "fit_together": "heads.dense.stack",
    "learning_curves": "report.plots",
    "pack": "store.packing",
    "prediction_grid": "report.grid",
    "run_sweep": "search.sweep",
    "train_heads": "training",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("featcache")
    if name not in _HOMES:
        raise AttributeError(f"module 'featcache' has no attribute {name!r}")
    return getattr(import_module(f"featcache.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*_HOMES, "__version__"])
