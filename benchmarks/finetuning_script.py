"""The whole job as a plain Keras script: every photo goes through the network in every epoch.

``python -m benchmarks.finetuning_script TRAIN VALIDATION WEIGHTS EPOCHS`` prints one JSON line. It follows
the TensorFlow tutorial "Transfer learning and fine-tuning" without its augmentation:
https://www.tensorflow.org/tutorials/images/transfer_learning
"""

from __future__ import annotations

import json
import sys
import time


def main() -> None:
    started = time.perf_counter()
    train, validation, weights, epochs = sys.argv[1:]
    import keras
    import tensorflow as tf

    size = (160, 160)
    train_dataset = keras.utils.image_dataset_from_directory(
        train, batch_size=32, image_size=size, shuffle=True
    )
    validation_dataset = keras.utils.image_dataset_from_directory(validation, batch_size=32, image_size=size)
    train_dataset = train_dataset.prefetch(tf.data.AUTOTUNE)
    validation_dataset = validation_dataset.prefetch(tf.data.AUTOTUNE)

    base_model = keras.applications.MobileNetV2(input_shape=(*size, 3), include_top=False, weights=None)
    if weights != "random":
        base_model.load_weights(weights)
    base_model.trainable = False
    inputs = keras.Input(shape=(*size, 3))
    x = keras.applications.mobilenet_v2.preprocess_input(inputs)
    x = base_model(x, training=False)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(0.2)(x)
    outputs = keras.layers.Dense(1)(x)
    model = keras.Model(inputs, outputs)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    metrics = [keras.metrics.BinaryAccuracy(threshold=0, name="accuracy")]
    model.compile(optimizer=keras.optimizers.Adam(learning_rate=1e-4), loss=loss, metrics=metrics)
    history = model.fit(train_dataset, epochs=int(epochs), validation_data=validation_dataset, verbose=0)
    frozen = time.perf_counter() - started

    base_model.trainable = True
    for layer in base_model.layers[:100]:
        layer.trainable = False
    model.compile(optimizer=keras.optimizers.RMSprop(learning_rate=1e-5), loss=loss, metrics=metrics)
    fine = model.fit(train_dataset, epochs=int(epochs), validation_data=validation_dataset, verbose=0)
    result = {
        "frozen_seconds": round(frozen, 2),
        "seconds": round(time.perf_counter() - started, 2),
        "frozen_accuracy": history.history["val_accuracy"],
        "accuracy": fine.history["val_accuracy"],
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
