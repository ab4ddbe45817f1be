"""Scores of a classifier with confidence intervals, as plain numbers ready for JSON.

The names are imported when first used: predictions need novelty from here, and not scikit-learn.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featcache.evaluation.bootstrap import intervals as intervals
    from featcache.evaluation.calibration_error import (
        expected_calibration_error as expected_calibration_error,
    )
    from featcache.evaluation.paired import mcnemar_exact as mcnemar_exact
    from featcache.evaluation.paired import paired_test as paired_test
    from featcache.evaluation.scoring import full_scores as full_scores
    from featcache.evaluation.scoring import score_head as score_head
    from featcache.evaluation.scoring import score_head_fully as score_head_fully
    from featcache.evaluation.scoring import scores as scores
    from featcache.evaluation.wilson import wilson_interval as wilson_interval

_HOMES = {
    "expected_calibration_error": "calibration_error",
    "full_scores": "scoring",
    "intervals": "bootstrap",
    "mcnemar_exact": "paired",
    "paired_test": "paired",
    "score_head": "scoring",
    "score_head_fully": "scoring",
    "scores": "scoring",
    "wilson_interval": "wilson",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'featcache.evaluation' has no attribute {name!r}")
    return getattr(import_module(f"featcache.evaluation.{_HOMES[name]}"), name)
