"""Scores of a classifier with confidence intervals, as plain numbers ready for JSON."""

from featcache.evaluation.bootstrap import intervals
from featcache.evaluation.calibration_error import expected_calibration_error
from featcache.evaluation.paired import mcnemar_exact, paired_test
from featcache.evaluation.scoring import full_scores, score_head, score_head_fully, scores
from featcache.evaluation.wilson import wilson_interval

__all__ = [
    "expected_calibration_error",
    "full_scores",
    "intervals",
    "mcnemar_exact",
    "paired_test",
    "score_head",
    "score_head_fully",
    "scores",
    "wilson_interval",
]
