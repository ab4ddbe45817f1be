"""Stage 2: trains the recipe's heads on a feature file, scores and saves them."""

from featcache.run.results import HeadResult
from featcache.training.data import fingerprint_of
from featcache.training.head import name_classes, with_class_numbers
from featcache.training.stage import Training, failures_sentence, train_heads

__all__ = [
    "HeadResult",
    "Training",
    "failures_sentence",
    "fingerprint_of",
    "name_classes",
    "train_heads",
    "with_class_numbers",
]
