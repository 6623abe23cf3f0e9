"""Torch models of many kinds; each function is a recipe's loader, `ROWS` holds its data."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

RANDOM = np.random.default_rng(0)


def seeded(make):
    def load():
        torch.manual_seed(0)
        return make().eval()

    return load


def images(rows=48, channels=1, size=16):
    return RANDOM.normal(size=(rows, channels, size, size)).astype(np.float32)


class Unet(nn.Module):
    """Segments images of any even size."""

    def __init__(self):
        super().__init__()
        self.down, self.inner = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.out = nn.Conv2d(16, 3, 1)

    def forward(self, image):
        skip = torch.relu(self.down(image))
        inner = torch.relu(self.inner(nn.functional.max_pool2d(skip, 2)))
        return self.out(torch.cat([skip, self.up(inner)], 1))


class Audio(nn.Module):
    """Classifies sounds of any length."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv1d(1, 8, 5, stride=2), nn.Conv1d(8, 16, 5, stride=2)
        self.scores = nn.Linear(16, 3)

    def forward(self, samples):
        hidden = torch.relu(self.second(torch.relu(self.first(samples[:, None]))))
        return self.scores(hidden.mean(-1))


class Blocks(nn.Module):
    """MobileNet's kind of blocks: depthwise, pointwise, batch normalization, hard swish."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Hardswish(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 16, 1), nn.PReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
        )  # fmt: skip

    def forward(self, image):
        return self.layers(image)


class Vit(nn.Module):
    """Patches and pre-norm attention by nn.MultiheadAttention."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 32, 4, stride=4)
        self.blocks = nn.ModuleList(_Block() for _ in range(2))
        self.scores = nn.Linear(32, 4)

    def forward(self, image):
        tokens = self.patches(image).flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        return self.scores(tokens.mean(1))


class _Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.after = nn.LayerNorm(32), nn.LayerNorm(32)
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.wide, self.narrow = nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, tokens):
        normed = self.before(tokens)
        tokens = tokens + self.attention(normed, normed, normed, need_weights=False)[0]
        return tokens + self.narrow(nn.functional.gelu(self.wide(self.after(tokens))))


class GruAttention(nn.Module):
    """A sequence model with attention over its steps."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(50, 16)
        self.steps = nn.GRU(16, 16, batch_first=True)
        self.weigh, self.scores = nn.Linear(16, 1), nn.Linear(16, 3)

    def forward(self, ids, mask):
        hidden, _ = self.steps(self.words(ids))
        weights = self.weigh(hidden).squeeze(-1).masked_fill(mask == 0, -1e4).softmax(-1)
        return self.scores((weights[..., None] * hidden).sum(1))


class Packed(nn.Module):
    """Uses packed sequences, which no exporter takes."""

    def __init__(self):
        super().__init__()
        self.steps, self.scores = nn.GRU(3, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, steps, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(steps, lengths, batch_first=True, enforce_sorted=False)
        return self.scores(self.steps(packed)[1][-1])


class TwoBranches(nn.Module):
    """Takes one dict, gives a nest with None and a list."""

    def __init__(self):
        super().__init__()
        self.picture, self.table = nn.Conv2d(1, 4, 3), nn.Linear(5, 4)
        self.scores, self.value = nn.Linear(8, 3), nn.Linear(8, 1)

    def forward(self, batch):
        hidden = torch.cat([self.picture(batch["image"]).mean((2, 3)), self.table(batch["columns"])], 1).relu()
        return self.scores(hidden), None, [hidden, {"value": self.value(hidden)}]


class WithLoss(nn.Module):
    """Gives one number for the whole batch beside its scores."""

    def __init__(self):
        super().__init__()
        self.scores = nn.Linear(6, 3)

    def forward(self, x):
        scores = self.scores(x)
        return {"scores": scores, "energy": scores.square().mean()}


class Mlp(nn.Module):
    def __init__(self, features=6, classes=3):
        super().__init__()
        self.hidden, self.scores = nn.Linear(features, 16), nn.Linear(16, classes)

    def forward(self, x):
        return self.scores(torch.tanh(self.hidden(x)))


class Pair(nn.Module):
    """Two inputs, the second by keyword."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(6, 8), nn.Linear(4, 8)
        self.scores = nn.Linear(8, 2)

    def forward(self, x, *, context):
        return self.scores(torch.relu(self.left(x) * self.right(context)))


class Branch(nn.Module):
    """Decides by a value of its input."""

    def __init__(self):
        super().__init__()
        self.scores = nn.Linear(6, 3)

    def forward(self, x):
        return self.scores(x) if x.sum() > 0 else -self.scores(x)


class Stft(nn.Module):
    """A spectrogram in front of a classifier."""

    def __init__(self):
        super().__init__()
        self.register_buffer("window", torch.hann_window(32))
        self.scores = nn.Linear(17, 3)

    def forward(self, samples):
        spectrum = torch.stft(samples, 32, 16, window=self.window, return_complex=True).abs()
        return self.scores(torch.log1p(spectrum).mean(-1))


def lengths(rows=48, longest=10):
    given = RANDOM.integers(3, longest, size=rows)
    given[0] = longest
    return given


MODELS = {
    "unet": Unet, "audio": Audio, "blocks": Blocks, "vit": Vit, "gru": GruAttention, "packed": Packed,
    "branches": TwoBranches, "loss": WithLoss, "mlp": Mlp, "pair": Pair, "branch": Branch, "stft": Stft,
}  # fmt: skip
ROWS = {
    "unet": {"image": images()},
    "audio": {"samples": RANDOM.normal(size=(48, 64)).astype(np.float32)},
    "blocks": {"image": images()},
    "vit": {"image": images()},
    "gru": {
        "ids": RANDOM.integers(0, 50, size=(48, 10)),
        "mask": (np.arange(10) < lengths()[:, None]).astype(np.int64),
    },
    "packed": {"steps": RANDOM.normal(size=(48, 10, 3)).astype(np.float32), "lengths": lengths()},
    "branches": {"image": images(size=8), "columns": RANDOM.normal(size=(48, 5)).astype(np.float32)},
    "loss": {"x": RANDOM.normal(size=(48, 6)).astype(np.float32)},
    "mlp": {"x": RANDOM.normal(size=(48, 6)).astype(np.float32)},
    "pair": {
        "x": RANDOM.normal(size=(48, 6)).astype(np.float32),
        "context": RANDOM.normal(size=(48, 4)).astype(np.float32),
    },
    "branch": {"x": RANDOM.normal(size=(48, 6)).astype(np.float32)},
    "stft": {"samples": RANDOM.normal(size=(48, 64)).astype(np.float32)},
}
# A recipe names functions of a module, so each model gets two: `unet`, the loader, and `unet_rows`, the data.
for _name, _class in MODELS.items():
    globals()[_name] = seeded(_class)
    globals()[f"{_name}_rows"] = lambda _name=_name: ROWS[_name]
