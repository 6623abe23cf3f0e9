"""Forecasts of the CO2 measured weekly on Mauna Loa: an LSTM, a GRU, a transformer; two years to three months ahead.

The series comes with statsmodels (1958 to 2001; gaps are interpolated). A window is what the network sees: its values
minus the last one. It answers with the next weeks, minus that same value, so a rising level is no matter.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import nn
from torch.nn import functional

WINDOW, AHEAD = 104, 13
SCALE = 5.0
"""Parts per million that stand for 1 inside the networks."""

TRAINED, CALIBRATED = 0.7, 0.8
"""Where training ends and where calibration ends, as shares of the series: the newest fifth is for evaluation."""


class Lstm(nn.Module):
    """float32 [batch, 104] weeks to float32 [batch, 13]: two recurrent layers and a linear one."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(1, width, num_layers=2, batch_first=True)
        self.head = nn.Linear(width, AHEAD)

    def forward(self, history: torch.Tensor) -> torch.Tensor:
        states, _ = self.recurrent(history[..., None] / SCALE)
        return self.head(states[:, -1]) * SCALE


class Gru(nn.Module):
    """float32 [batch, 104] weeks to float32 [batch, 13]: as the LSTM, of gated recurrent units."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.recurrent = nn.GRU(1, width, num_layers=2, batch_first=True)
        self.head = nn.Linear(width, AHEAD)

    def forward(self, history: torch.Tensor) -> torch.Tensor:
        states, _ = self.recurrent(history[..., None] / SCALE)
        return self.head(states[:, -1]) * SCALE


class Block(nn.Module):
    """A transformer layer: attention and a feed-forward part, each behind a normalization of its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.mix = (nn.Linear(width, width) for _ in range(4))
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        normal = self.before_attention(states)
        query, key, value = (
            layer(normal).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        states = states + self.mix(mixed)
        return states + self.narrow(functional.gelu(self.wide(self.before_feed(states))))


class Transformer(nn.Module):
    """float32 [batch, 104] weeks to float32 [batch, 13]: patches of 4 weeks, three layers, a linear one on the last."""

    def __init__(self, width: int = 64, heads: int = 4, layers: int = 3, patch: int = 4) -> None:
        super().__init__()
        self.patch = patch
        self.embed = nn.Linear(patch, width)
        self.places = nn.Parameter(torch.randn(WINDOW // patch, width) * 0.02)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.last = nn.LayerNorm(width)
        self.head = nn.Linear(width, AHEAD)

    def forward(self, history: torch.Tensor) -> torch.Tensor:
        patches = (history / SCALE).unflatten(-1, (-1, self.patch))
        states = self.blocks(self.embed(patches) + self.places)
        return self.head(self.last(states[:, -1])) * SCALE


def lstm() -> nn.Module:
    return Lstm()


def gru() -> nn.Module:
    return Gru()


def transformer() -> nn.Module:
    return Transformer()


@cache
def windows() -> tuple[np.ndarray, np.ndarray]:
    """Return float32 histories [n, 104] and futures [n, 13], both minus the history's last value, oldest first."""
    from statsmodels.datasets import co2

    series = co2.load_pandas().data["co2"].interpolate().to_numpy(np.float32)
    cut = np.lib.stride_tricks.sliding_window_view(series, WINDOW + AHEAD)
    level = cut[:, WINDOW - 1 : WINDOW]
    return np.ascontiguousarray(cut[:, :WINDOW] - level), np.ascontiguousarray(cut[:, WINDOW:] - level)


def _between(start: float, end: float) -> dict[str, np.ndarray]:
    history, future = windows()
    # Windows that reach over a border would show one part's futures to another.
    first = int(len(history) * start) + (WINDOW + AHEAD if start else 0)
    part = slice(first, int(len(history) * end))
    return {"history": history[part], "label": future[part]}


def training() -> dict[str, np.ndarray]:
    return _between(0.0, TRAINED)


def calibration() -> dict[str, np.ndarray]:
    return {"history": _between(TRAINED, CALIBRATED)["history"]}


def evaluation() -> dict[str, np.ndarray]:
    return _between(CALIBRATED, 1.0)
