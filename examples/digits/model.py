"""A convolutional network for scikit-learn's 8x8 handwritten digits: model, data and fine-tune hook for the recipe.

The 1,797 images are split once, by a fixed seed, into 60 % training, 10 % calibration and 30 % evaluation rows.
Quantization only ever sees calibration rows, fine-tuning only training rows, and neither sees evaluation rows.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

SEED = 7
BATCH = 64


class DigitsNet(nn.Module):
    """Three convolution blocks and a linear head: float32 [batch, 1, 8, 8] pixels in 0..1 to [batch, 10] logits."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _block(1, 32), _block(32, 64), nn.MaxPool2d(2), _block(64, 128), nn.MaxPool2d(2), nn.Flatten()
        )
        self.head = nn.Sequential(nn.Linear(128 * 2 * 2, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(image))


def _block(channels: int, filters: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU())


def build() -> nn.Module:
    """Return the network with random weights; the recipe's `file` holds the trained ones."""
    return DigitsNet()


@cache
def _split() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[:, None]
    order = np.random.default_rng(SEED).permutation(len(images))
    train, calibration, evaluation = np.split(order, [int(0.6 * len(order)), int(0.7 * len(order))])
    rows = {"train": train, "calibration": calibration, "evaluation": evaluation}
    return {name: (images[index], digits.target[index].astype(np.int64)) for name, index in rows.items()}


def calibration() -> dict[str, np.ndarray]:
    return {"image": _split()["calibration"][0]}


def evaluation() -> dict[str, np.ndarray]:
    images, labels = _split()["evaluation"]
    return {"image": images, "label": labels}


def train(model: nn.Module, epochs: int) -> nn.Module:
    """Train in place on the training rows and return the model.

    Args:
        model: takes [batch, 1, 8, 8] and gives [batch, 10] logits.
        epochs: passes over the training rows; the learning rate falls to zero over them.
    """
    torch.manual_seed(SEED)
    images, labels = (torch.from_numpy(array) for array in _split()["train"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-3)
    steps = epochs * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for _ in range(epochs):
        for index in torch.randperm(len(images)).split(BATCH):
            loss = nn.functional.cross_entropy(model(images[index]), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()
