"""Deprecated: the names that this module had in version 0.1. It will be removed in version 0.3.

Import `train_heads` and `Training` from `featcache.training`, and `HeadResult` from `featcache.run.results`.
"""

from featcache.files import write_bytes_whole
from featcache.run.results import HeadResult
from featcache.training import Training, train_heads

__all__ = ["HeadResult", "Training", "train_heads", "write_bytes_whole"]
