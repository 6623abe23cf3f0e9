"""Two networks for pictures of scikit-learn's handwritten digits, three channels of 64 x 64 pixels: models and data.

ResNet-18 (He et al., 2016, arXiv:1512.03385) has eleven million parameters; the depthwise one, of MobileNetV2's
inverted residuals (Sandler et al., 2018, arXiv:1801.04381), has a ninetieth of them. The 1,797 digits are split once,
by a fixed seed, into 60 % training, 10 % calibration and 30 % evaluation rows.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

SEED = 7
SIDE = 64
CLASSES = 10
BATCH = 64


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(filters)
        self.second = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(filters)
        self.shortcut = nn.Sequential()
        if stride > 1 or channels != filters:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        inner = functional.relu(self.first_norm(self.first(states)))
        return functional.relu(self.second_norm(self.second(inner)) + self.shortcut(states))


class Inverted(nn.Module):
    """Wide by a 1 x 1 convolution, one 3 x 3 filter a channel, narrow again; a shortcut where the shape stays."""

    def __init__(self, channels: int, filters: int, stride: int, wider: int = 4) -> None:
        super().__init__()
        wide = channels * wider
        self.layers = nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(),
            nn.Conv2d(wide, filters, 1, bias=False), nn.BatchNorm2d(filters),
        )  # fmt: skip
        self.same = stride == 1 and channels == filters

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        inner = self.layers(states)
        return states + inner if self.same else inner


def resnet18() -> nn.Module:
    """Return ResNet-18: float32 [batch, 3, 64, 64] pixels in 0..1 to [batch, 10] logits."""
    widths = (64, 64, 128, 128, 256, 256, 512, 512)
    pairs = zip((64, *widths), widths, strict=False)
    blocks = [Residual(before, after, 1 if before == after else 2) for before, after in pairs]
    return nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1), *blocks,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, CLASSES),
    )  # fmt: skip


def depthwise() -> nn.Module:
    """Return the depthwise network: float32 [batch, 3, 64, 64] pixels in 0..1 to [batch, 10] logits."""
    shapes = ((16, 24, 2), (24, 24, 1), (24, 40, 2), (40, 40, 1), (40, 80, 2), (80, 80, 1))
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6(), *(Inverted(*shape) for shape in shapes),
        nn.Conv2d(80, 160, 1, bias=False), nn.BatchNorm2d(160), nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(160, CLASSES),
    )  # fmt: skip


@cache
def _split() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    digits = load_digits()
    small = torch.from_numpy((digits.images / 16.0).astype(np.float32))[:, None]
    large = functional.interpolate(small, (SIDE, SIDE), mode="bilinear", align_corners=False)
    images = large.expand(-1, 3, -1, -1).numpy()
    order = np.random.default_rng(SEED).permutation(len(images))
    parts = np.split(order, [int(0.6 * len(order)), int(0.7 * len(order))])
    return {
        name: (np.ascontiguousarray(images[index]), digits.target[index].astype(np.int64))
        for name, index in zip(("train", "calibration", "evaluation"), parts, strict=True)
    }


def calibration() -> dict[str, np.ndarray]:
    return {"image": _split()["calibration"][0]}


def evaluation() -> dict[str, np.ndarray]:
    images, labels = _split()["evaluation"]
    return {"image": images, "label": labels}


def train(model: nn.Module, epochs: int) -> nn.Module:
    """Train in place on the training rows, each moved by up to four pixels, and return the model.

    Args:
        model: takes [batch, 3, 64, 64] and gives [batch, 10] logits.
        epochs: passes over the training rows; the learning rate falls to zero over them.
    """
    torch.manual_seed(SEED)
    images, labels = (torch.from_numpy(array) for array in _split()["train"])
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=1e-2)
    steps = epochs * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(BATCH):
            down, right = (int(n) for n in torch.randint(-4, 5, (2,)))
            optimizer.zero_grad()
            moved = images[chosen].roll((down, right), (2, 3))
            functional.cross_entropy(model(moved), labels[chosen], label_smoothing=0.05).backward()
            optimizer.step()
            schedule.step()
    return model.eval()
