"""Writes one model of each kind; run with version 0.1 of featcache to make the files of this folder."""

import sys
from pathlib import Path

import keras
import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from featcache.bases.spec import BaseSpec
from featcache.heads.dense import DenseHead
from featcache.heads.keras_head import KerasHead
from featcache.model import Model
from featcache.recipe import BaseSettings

SETTINGS = BaseSettings(name="MobileNetV2", weights="random", image_size=(32, 32))
SPEC = BaseSpec(
    name="MobileNetV2",
    architecture="keras.applications.MobileNetV2",
    arguments={},
    weights="0" * 64,
    layer="out_relu",
    pooling="avg",
    image_size=(32, 32),
    resize="stretch",
    interpolation="bilinear",
    preprocessing="keras.applications.mobilenet_v2",
    precision="f32",
    dtype="float32",
    feature_shape=(6,),
)
X = np.random.default_rng(0).standard_normal((60, 6)).astype(np.float32)
y = (X[:, 0] > 0).astype(int)


def build(inputs, classes):
    layers = keras.layers
    return keras.Sequential([keras.Input(inputs), layers.Dense(4, "relu"), layers.Dense(classes, "softmax")])


HEADS = {
    "linear": DenseHead(epochs=3, random_state=0),
    "hidden": DenseHead(units=(4,), epochs=3, random_state=0),
    "keras": KerasHead(build, epochs=2, random_state=0),
    "logistic": LogisticRegression(),
    "forest": RandomForestClassifier(3, max_depth=2, random_state=0),
}

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    expected = {}
    for name, head in HEADS.items():
        head.fit(X, y)
        model = Model(name, ("cat", "dog"), SETTINGS, SPEC, head, {}, Path("cache"))
        model.save(folder / name)
        expected[name] = head.predict_proba(X[:5])
    np.savez(folder / "expected.npz", X=X[:5], **expected)
