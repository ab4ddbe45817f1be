import os
import subprocess
import sys

import numpy as np
import pytest

from featcache.runtime import pooling_layer

FEATURES = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("flatten", FEATURES.reshape(2, -1)),
        ("avg", FEATURES.mean(axis=(1, 2))),
        ("max", FEATURES.max(axis=(1, 2))),
    ],
)
def test_a_pooling_layer_gives_vectors(pooling, expected):
    layer = pooling_layer(pooling, "pooling")
    assert layer.name == "pooling"
    np.testing.assert_allclose(layer(FEATURES), expected, rtol=1e-5, atol=1e-6)


def test_no_pooling_is_no_layer():
    assert pooling_layer("none") is None


FORKED = """
import os, sys, types
from featcache.errors import BaseNetworkError
from featcache.runtime import refuse_after_fork
if sys.argv[1] == "imported":
    sys.modules["tensorflow"] = types.ModuleType("tensorflow")
refuse_after_fork()  # not in the process that imported it
if os.fork() == 0:
    try:
        refuse_after_fork()
        print("allowed")
    except BaseNetworkError as error:
        print("refused:", error)
else:
    os.wait()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize(
    ("imported", "answer"), [("imported", "refused: TensorFlow does not"), ("not", "allowed")]
)
def test_tensorflow_is_refused_in_children_of_a_process_that_imported_it(imported, answer):
    command = [sys.executable, "-c", FORKED, imported]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(answer)
