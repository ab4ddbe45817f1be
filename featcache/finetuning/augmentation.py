"""Augments pixels anew in every epoch with Keras: what stored views are compared with."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from featcache.images.views import ASPECT
from featcache.recipe import AugmentSettings
from featcache.runtime import keras, tensorflow


def augmentation_of(settings: AugmentSettings | None, seed: int) -> Any:
    """Return a Keras model from pixels (n, h, w, 3) of 0 to 255 to augmented ones, float32.

    The changes, their order and the ranges that they are drawn from are those of stored views. Unlike these
    it crops the photo after it was brought to its size, and does not round in between. The state of its
    random numbers is in its variables.

    Parameters
    ----------
    settings : AugmentSettings or None
        None gives None.
    seed : int
    """
    if settings is None:
        return None
    layers = keras().layers
    steps: list[Any] = []
    if settings.crop[0] < 1.0:
        steps.append(_random_crop(settings.crop, seed))
    if settings.flip:
        steps.append(layers.RandomFlip("horizontal", seed=seed + 1))
    if settings.rotation:
        steps.append(layers.RandomRotation(settings.rotation, fill_mode="reflect", seed=seed + 2))
    if settings.brightness:
        steps.append(_random_brightness(settings.brightness, seed + 3))
    if settings.contrast:
        # one number would be the upper bound alone
        both = (settings.contrast, settings.contrast)
        steps.append(layers.RandomContrast(both, (0, 255), seed=seed + 4))
    return keras().Sequential([layers.Rescaling(1.0, dtype="float32"), *steps], name="augmentation")


def _random_crop(share: tuple[float, float], seed: int) -> Any:
    """Return a layer that shows a part of each photo, at the photo's size; Keras has none of that kind."""
    uniform, tf = keras().random.uniform, tensorflow()

    def change(images: Any, generator: Any) -> Any:
        count, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
        area, aspect, x, y = tf.unstack(uniform((4, count), seed=generator))
        area = share[0] + (share[1] - share[0]) * area
        widest = tf.minimum(math.log(ASPECT), -tf.math.log(area))
        ratio = tf.exp((2.0 * aspect - 1.0) * widest)
        wide, high = tf.minimum(tf.sqrt(area * ratio), 1.0), tf.minimum(tf.sqrt(area / ratio), 1.0)
        left, top = x * (1.0 - wide), y * (1.0 - high)
        boxes = tf.stack([top, left, top + high, left + wide], axis=1)
        return tf.image.crop_and_resize(images, boxes, tf.range(count), [height, width])

    return _in_training(change, seed)


def _random_brightness(most: float, seed: int) -> Any:
    """Return a layer that multiplies each photo's pixels; Keras's own adds to them."""
    uniform, tf = keras().random.uniform, tensorflow()

    def change(images: Any, generator: Any) -> Any:
        shape = (tf.shape(images)[0], 1, 1, 1)
        factor = uniform(shape, 1.0 - most, 1.0 + most, seed=generator)
        return tf.clip_by_value(images * factor, 0.0, 255.0)

    return _in_training(change, seed)


def _in_training(change: Callable[[Any, Any], Any], seed: int) -> Any:
    """Return a layer that changes images in training, given a generator of its own."""
    module = keras()

    class InTraining(module.layers.Layer):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.generator = module.random.SeedGenerator(seed)

        def call(self, images: Any, training: bool = False) -> Any:
            return change(images, self.generator) if training else images

    return InTraining()
