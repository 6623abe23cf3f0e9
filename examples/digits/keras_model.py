"""The digits network in Keras 2 (tf_keras), channels last: model, data and fine-tune hook for keras.yaml."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import tf_keras
from sklearn.datasets import load_digits

SEED = 7


@cache
def _split() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """60 % training, 10 % calibration and 30 % evaluation rows, split by a fixed seed."""
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[..., None]
    order = np.random.default_rng(SEED).permutation(len(images))
    train, calibration, evaluation = np.split(order, [int(0.6 * len(order)), int(0.7 * len(order))])
    rows = {"train": train, "calibration": calibration, "evaluation": evaluation}
    return {name: (images[index], digits.target[index].astype(np.int64)) for name, index in rows.items()}


def load() -> Any:
    """Train the network, in a few seconds, and return it: float32 [batch, 8, 8, 1] pixels to [batch, 10] logits."""
    tf_keras.utils.set_random_seed(SEED)
    layers = tf_keras.layers
    model = tf_keras.Sequential([tf_keras.Input((8, 8, 1), name="image")])
    for filters in (32, 64):
        model.add(layers.Conv2D(filters, 3, padding="same", use_bias=False))
        model.add(layers.BatchNormalization(momentum=0.9))
        model.add(layers.ReLU())
        model.add(layers.MaxPool2D())
    model.add(layers.Flatten())
    model.add(layers.Dense(64, activation="relu"))
    model.add(layers.Dense(10, name="logits"))
    return train(model, 20)


def train(model: Any, epochs: int) -> Any:
    """Train in place on the training rows and return the model."""
    images, labels = _split()["train"]
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf_keras.optimizers.Adam(2e-3), loss)
    model.fit(images, labels, batch_size=64, epochs=epochs, verbose=0)
    return model


def calibration() -> dict[str, np.ndarray]:
    return {"image": _split()["calibration"][0]}


def evaluation() -> dict[str, np.ndarray]:
    images, labels = _split()["evaluation"]
    return {"image": images, "label": labels}
