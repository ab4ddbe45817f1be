"""Keras augments pixels as stored views are augmented, anew each time."""

import numpy as np
import pytest

from featcache.finetuning.augmentation import augmentation_of
from featcache.recipe import AugmentSettings

ALL = AugmentSettings(flip=True, rotation=0.1, crop=(0.5, 1.0), brightness=0.3, contrast=0.3)


def pixels(n=16, size=(12, 16)):
    return np.random.default_rng(0).integers(0, 256, (n, *size, 3)).astype(np.uint8)


def test_every_call_draws_anew_and_only_in_training():
    model, images = augmentation_of(ALL, 0), pixels()
    one, other = (np.asarray(model(images, training=True)) for _ in range(2))
    assert one.shape == images.shape
    assert one.dtype == np.float32
    assert one.min() >= 0
    assert one.max() <= 255
    assert not np.array_equal(one, other)
    assert np.array_equal(np.asarray(model(images, training=False)), images)


def test_its_variables_are_the_state_of_its_random_numbers():
    first, second, images = augmentation_of(ALL, 7), augmentation_of(ALL, 7), pixels()
    np.asarray(first(images, training=True))
    for one, other in zip(second.variables, first.variables, strict=True):
        one.assign(other)
    assert np.array_equal(np.asarray(first(images, training=True)), np.asarray(second(images, training=True)))


@pytest.mark.parametrize("kind", ["brightness", "contrast"])
def test_brightness_and_contrast_are_factors_of_each_photo(kind):
    model = augmentation_of(AugmentSettings(**{kind: 0.3}), 0)
    images = np.random.default_rng(0).integers(90, 140, (200, 4, 4, 3)).astype(np.float32)
    varied = np.asarray(model(images, training=True))
    measure = np.mean if kind == "brightness" else np.std
    factors = measure(varied, (1, 2)).mean(1) / measure(images, (1, 2)).mean(1)
    assert 0.69 < factors.min() < 0.75
    assert 1.25 < factors.max() < 1.31


def test_a_crop_shows_as_much_as_was_asked_for():
    model = augmentation_of(AugmentSettings(crop=(0.25, 0.25)), 0)
    ramp = np.broadcast_to(np.linspace(0, 255, 64)[:, None], (64, 64))
    images = np.stack([ramp, ramp.T, ramp], -1)[None].repeat(50, 0)
    shown = np.asarray(model(images, training=True))
    spans = np.ptp(shown, axis=(1, 2)) / 255
    np.testing.assert_allclose(spans[:, 0] * spans[:, 1], 0.25, atol=0.02)
    assert np.ptp(spans[:, 0]) > 0.05, "the aspect differs"


def test_without_settings_there_is_nothing():
    assert augmentation_of(None, 0) is None
