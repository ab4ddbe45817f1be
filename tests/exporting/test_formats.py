"""Each format computes what the Keras network computes, whatever its preprocessing holds on to."""

import numpy as np
import pytest

from featcache.exporting.formats import WRITERS, Exportable
from featcache.exporting.runtimes import RUNTIMES
from featcache.runtime import keras


@pytest.mark.parametrize("mode", ["torch", "caffe", "tf"])
@pytest.mark.parametrize("to", WRITERS)
def test_preprocessing_of_keras_is_inside(tmp_path, mode, to):
    module = keras()
    pixels = module.Input((16, 16, 3), dtype="uint8", name="pixels")
    prepared = module.applications.imagenet_utils.preprocess_input(
        module.ops.cast(pixels, "float32"), mode=mode
    )
    features = module.layers.Conv2D(4, 3, activation="swish")(prepared)
    classes = module.layers.Dense(3, "softmax")(module.layers.GlobalAveragePooling2D()(features))
    network = module.Model(pixels, classes)
    photos = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    file = WRITERS[to](Exportable(network, "model", ("a", "b", "c")), tmp_path)
    said = RUNTIMES[to].open(file)(photos)
    assert said.shape == (5, 3)
    assert said == pytest.approx(np.asarray(network(photos)), abs=1e-5)
