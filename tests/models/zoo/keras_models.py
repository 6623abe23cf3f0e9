"""Keras models; `NAME` is a recipe's loader, `NAME_rows` its data."""

from __future__ import annotations

import numpy as np

RANDOM = np.random.default_rng(2)
MATRIX = RANDOM.normal(2, 3, size=(64, 6)).astype(np.float32)
IMAGES = RANDOM.normal(size=(32, 12, 12, 1)).astype(np.float32)
STEPS = RANDOM.normal(size=(32, 7, 3)).astype(np.float32)


def normalized():
    import keras

    keras.utils.set_random_seed(0)
    normalization = keras.layers.Normalization()
    normalization.adapt(MATRIX)
    layers = [keras.Input((6,), name="x"), normalization, keras.layers.Dense(8, "gelu"), keras.layers.Dense(3)]
    return keras.Sequential(layers)


def pictures():
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((12, 12, 1), name="image")
    hidden = keras.layers.Conv2D(4, 3, activation="relu")(image)
    hidden = keras.layers.GlobalAveragePooling2D()(keras.layers.MaxPooling2D()(hidden))
    return keras.Model(
        image, [keras.layers.Dense(3, name="scores")(hidden), keras.layers.Dense(1, name="size")(hidden)]
    )


def recurrent():
    import keras

    keras.utils.set_random_seed(0)
    layers = [keras.Input((7, 3), name="steps"), keras.layers.LSTM(8), keras.layers.Dense(2)]
    return keras.Sequential(layers)


def older():
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    layers = tf_keras.layers
    return tf_keras.Sequential([layers.Dense(8, "relu", input_shape=(6,), name="x"), layers.Dense(2)])


def normalized_rows():
    return {"x": MATRIX}


def pictures_rows():
    return {"image": IMAGES}


def recurrent_rows():
    return {"steps": STEPS}


def older_rows():
    return {"x_input": MATRIX}
