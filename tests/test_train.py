"""The names of version 0.1 stay until version 0.3."""

import featcache.run.results
import featcache.train
import featcache.training


def test_the_deprecated_module_has_the_names_that_callers_used():
    assert featcache.train.train_heads is featcache.training.train_heads
    assert featcache.train.Training is featcache.training.Training
    assert featcache.train.HeadResult is featcache.run.results.HeadResult
    assert callable(featcache.train.write_bytes_whole)
    assert "Deprecated" in featcache.train.__doc__
