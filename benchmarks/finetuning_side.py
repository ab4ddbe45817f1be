"""One side's fine-tuning in a process of its own.

``python -m benchmarks.finetuning_side SIDE JOB PIXELS WEIGHTS PRECISION`` prints one JSON line. PIXELS is an
.npz file with decoded photos and labels, the same for both: reading JPEG files is not compared here.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.finetuning_jobs import JOBS, Job
from benchmarks.side import print_line

Rows = tuple[NDArray[np.uint8], NDArray[np.int32]]


def keras_end_to_end(job: Job, train: Rows, held_out: Rows, weights: str, precision: str) -> list[float]:
    """Fine-tune as in Keras's guide "Transfer learning & fine-tuning": through the whole network.

    Source: https://keras.io/guides/transfer_learning/ and the TensorFlow tutorial of the same name. It
    computes in f32, as its users do.
    """
    import keras
    import tensorflow as tf

    base = getattr(keras.applications, job.network)(
        include_top=False, weights=None, input_shape=(job.image_size, job.image_size, 3)
    )
    if weights != "random":
        base.load_weights(weights)
    base.trainable = True
    names = [layer.name for layer in base.layers]
    first = job.from_layer if isinstance(job.from_layer, int) else names.index(job.from_layer)
    for layer in base.layers[:first]:
        layer.trainable = False
    preprocess = getattr(keras.applications, job.keras_module).preprocess_input
    inputs = keras.Input((job.image_size, job.image_size, 3))
    features = base(preprocess(inputs), training=False)
    outputs = keras.layers.Dense(1)(keras.layers.GlobalAveragePooling2D()(features))
    model = keras.Model(inputs, outputs)
    model.compile(
        optimizer=keras.optimizers.RMSprop(job.learning_rate),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )

    def batches(rows: Rows) -> Any:
        return tf.data.Dataset.from_tensor_slices(rows).map(lambda x, y: (tf.cast(x, tf.float32), y))

    ends: list[float] = []
    model.fit(
        batches(train).shuffle(len(train[1])).batch(job.batch_size).prefetch(tf.data.AUTOTUNE),
        validation_data=batches(held_out).batch(job.batch_size).prefetch(tf.data.AUTOTUNE),
        epochs=job.epochs,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: ends.append(time.perf_counter()))],
    )
    return ends


def featcache(job: Job, train: Rows, held_out: Rows, weights: str, precision: str) -> list[float]:
    """Fine-tune from the boundary, whose features are computed before the clock starts."""
    from featcache.bases.boundary import split_at
    from featcache.bases.sources import build_network
    from featcache.finetuning.loop import FinetuneParams, train_top
    from featcache.finetuning.top import Top
    from featcache.heads.dense.feed import InMemory
    from featcache.heads.dense.feed import Rows as FeedRows
    from featcache.heads.dense.head import DenseHead
    from featcache.recipe import BaseSettings

    settings = BaseSettings(name=job.network, weights=weights, image_size=job.image_size, pooling="avg")
    start = {"unfreeze_from" if isinstance(job.from_layer, int) else "from_layer": job.from_layer}
    division = split_at(build_network(settings), **start)  # type: ignore[arg-type]
    below = build_network(settings.model_copy(update={"layer": division.boundary, "pooling": "none"})).model

    def feed(rows: Rows) -> InMemory:
        features = np.concatenate(
            [below(rows[0][at : at + 32], training=False) for at in range(0, len(rows[1]), 32)]
        )
        return InMemory(FeedRows.of(features.reshape(len(features), -1), rows[1]))

    vectors = (
        np.random.default_rng(0).standard_normal((64, division.upper.output_shape[-1])).astype(np.float32)
    )
    head = DenseHead(epochs=1, random_state=0).fit(vectors, np.arange(64) % 2)
    top = Top(division.upper, "avg", head, precision=precision)
    plan = FinetuneParams("rmsprop", job.learning_rate, 0.0, job.epochs, job.batch_size)
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        train_top(
            top,
            {"train": feed(train), "validation": feed(held_out)},
            plan,
            Path(folder),
            progress=lambda _: ends.append(time.perf_counter()),
        )
    return ends[1:]  # the first call tells that nothing is done yet


SIDES: dict[str, Callable[..., list[float]]] = {"keras": keras_end_to_end, "featcache": featcache}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.finetuning_side", description=__doc__)
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("job", choices=[job.name for job in JOBS])
    for name in ("pixels", "weights", "precision"):
        parser.add_argument(name)
    options = parser.parse_args()
    job = next(job for job in JOBS if job.name == options.job)
    with np.load(options.pixels) as file:
        x, y = file["pixels"], file["labels"]
    # a quick run has fewer photos than the job wants
    cut = min(job.rows, 2 * len(y) // 3)
    ends = SIDES[options.side](
        job, (x[:cut], y[:cut]), (x[cut:], y[cut:]), options.weights, options.precision
    )
    print_line({"seconds": median(np.diff(ends).tolist()), "images": cut})


if __name__ == "__main__":
    main()
