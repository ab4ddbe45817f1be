"""What people run otherwise, each as its own users write it.

``python -m benchmarks.peers NAME CONFIGURATION WARM_UP PHOTOS`` prints one JSON line. featcache is not
imported: a peer may live in an environment of its own.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.configurations import Configuration
from benchmarks.side import Extract, Extracted, measure, print_line


def image_data_generator(configuration: Configuration) -> Extract:
    """Keras's ImageDataGenerator and one ``predict`` for every batch of 20.

    Source: F. Chollet, "Deep Learning with Python", 2017, listing 5.17; repeated by many tutorials.
    """
    import numpy as np
    import tensorflow as tf

    conv_base = _keras_application(configuration)
    if configuration.preprocessing == "rescale":
        datagen = tf.keras.preprocessing.image.ImageDataGenerator(rescale=1.0 / 255)
    else:
        preprocess = _keras_preprocess(configuration)
        datagen = tf.keras.preprocessing.image.ImageDataGenerator(preprocessing_function=preprocess)
    batch_size = 20

    def extract(folder: Path) -> Extracted:
        side = configuration.image_size
        generator = datagen.flow_from_directory(
            folder, target_size=(side, side), batch_size=batch_size, class_mode="sparse", shuffle=False
        )
        features = np.zeros((generator.samples, *conv_base.output_shape[1:]))
        labels = np.zeros(generator.samples)
        for number in range(len(generator)):
            inputs, targets = next(generator)
            rows = slice(number * batch_size, number * batch_size + len(inputs))
            features[rows] = conv_base.predict(inputs, verbose=0)
            labels[rows] = targets
        return Extracted(len(features))

    return extract


def image_dataset(configuration: Configuration) -> Extract:
    """``image_dataset_from_directory``, mapped and prefetched, and one ``predict``: Keras's guides today."""
    import keras
    import tensorflow as tf

    model = _keras_application(configuration)
    preprocess = _keras_preprocess(configuration)
    side = configuration.image_size

    def extract(folder: Path) -> Extracted:
        photos = keras.utils.image_dataset_from_directory(
            folder, batch_size=32, shuffle=False, image_size=(side, side)
        )
        batches = photos.map(lambda x, y: preprocess(x), num_parallel_calls=tf.data.AUTOTUNE)
        features = model.predict(batches.prefetch(tf.data.AUTOTUNE), verbose=0)
        return Extracted(len(features))

    return extract


def thingsvision(configuration: Configuration) -> Extract:
    """The package's README: an extractor, its ImageDataset and DataLoader, ``extract_features``."""
    from thingsvision import get_extractor
    from thingsvision.utils.data import DataLoader, ImageDataset

    # random weights always: Keras's do not fit torchvision's network, and the speed does not depend on them
    extractor = get_extractor(
        model_name=configuration.torch_name, source="torchvision", device="cpu", pretrained=False
    )
    side = configuration.image_size

    def extract(folder: Path) -> Extracted:
        with tempfile.TemporaryDirectory() as out:
            dataset = ImageDataset(
                root=str(folder),
                out_path=out,
                backend=extractor.get_backend(),
                transforms=extractor.get_transformations(resize_dim=side, crop_dim=side),
            )
            batches = DataLoader(dataset=dataset, batch_size=32, backend=extractor.get_backend())
            features = extractor.extract_features(
                batches=batches, module_name="features", flatten_acts=True, output_type="ndarray"
            )
        return Extracted(len(features))

    return extract


def img2vec_pytorch(configuration: Configuration) -> Extract:
    """The package's README: ``get_vec`` on lists of opened photos; ImageNet weights and 224 px always."""
    from img2vec_pytorch import Img2Vec
    from PIL import Image

    img2vec = Img2Vec(cuda=False, model=configuration.torch_name)

    def extract(folder: Path) -> Extracted:
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        count = 0
        for start in range(0, len(paths), 32):
            count += len(img2vec.get_vec([Image.open(path) for path in paths[start : start + 32]]))
        return Extracted(count)

    return extract


PEERS: dict[str, Callable[[Configuration], Extract]] = {
    "image_data_generator": image_data_generator,
    "image_dataset": image_dataset,
    "thingsvision": thingsvision,
    "img2vec-pytorch": img2vec_pytorch,
}


def _keras_application(configuration: Configuration) -> Any:
    import keras

    side = configuration.image_size
    pooling = None if configuration.pooling == "none" else configuration.pooling
    model = getattr(keras.applications, configuration.network)(
        weights=None, include_top=False, input_shape=(side, side, 3), pooling=pooling
    )
    if configuration.weights != "random":
        model.load_weights(configuration.weights)
    return model


def _keras_preprocess(configuration: Configuration) -> Callable[[Any], Any]:
    import keras

    if configuration.preprocessing == "rescale":
        return lambda x: x / 255.0
    module = getattr(keras.applications, configuration.keras_module)
    return partial(module.preprocess_input)


def main() -> None:
    name, configuration, warm_up, photos = sys.argv[1:]
    build = partial(PEERS[name], Configuration.from_json(configuration))
    print_line(measure(build, Path(warm_up), Path(photos)))


if __name__ == "__main__":
    main()
