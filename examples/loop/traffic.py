"""Digits as an old and a new scanner give them, and callers that ask a service for them without a pause."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

PAUSE_S = 0.01
NOISE = 0.04


@dataclass(frozen=True)
class Rows:
    """Pictures, [rows, 64] pixels of 0..1, and which digit each shows."""

    pixels: np.ndarray
    labels: np.ndarray

    def of(self, places: np.ndarray) -> Rows:
        return Rows(self.pixels[places], self.labels[places])


def digits() -> Rows:
    """Return scikit-learn's 1797 digits, in a random order that is always the same."""
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(pixels))
    return Rows((pixels[order] / 16).astype(np.float32), labels[order].astype(np.int64))


def scanned(rows: Rows, *, new_scanner: bool, seed: int) -> Rows:
    """Return rows as a scanner gives them: the new one moves a picture by a pixel and is paler."""
    generator = np.random.default_rng(seed)
    pixels = rows.pixels
    if new_scanner:
        pixels = 0.7 * np.roll(pixels.reshape(-1, 8, 8), 1, axis=2).reshape(-1, 64)
    noisy = np.clip(pixels + generator.normal(0, NOISE, pixels.shape), 0, 1)
    return Rows(noisy.astype(np.float32), rows.labels)


@dataclass
class Callers:
    """Asks for rows, one after the other, until it is closed; what they ask for may change at any moment.

    Attributes:
        url: of the service.
        model: name.
        rows: that are asked for now.
        answered: request id, right label and given label of each answer since it was `taken`.
        total: answers.
        failed: what went wrong, a line each.
    """

    url: str
    model: str
    rows: Rows
    answered: list[tuple[str, int, int]] = field(default_factory=list)
    total: int = 0
    failed: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Callers:
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def taken(self, count: int, timeout_s: float = 240.0) -> list[tuple[str, int, int]]:
        """Wait for so many answers from now on, and return them."""
        self.answered = []
        deadline = time.monotonic() + timeout_s
        while len(self.answered) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self.answered)} of {count} answers came; {self.failed[-1:]}")
            time.sleep(0.05)
        return list(self.answered)

    def _ask(self) -> None:
        place = 0
        while not self._stop.wait(PAUSE_S):
            rows = self.rows
            place = (place + 1) % len(rows.labels)
            body = {"inputs": {"pixels": [rows.pixels[place].tolist()]}}
            try:
                content, head = post(f"{self.url}/models/{self.model}/predict", body)
            except (OSError, ValueError) as error:
                self.failed.append(str(error))
                continue
            self.total += 1
            given = int(content["outputs"]["label"][0])
            self.answered.append((head["x-request-id"], int(rows.labels[place]), given))


def post(url: str, body: Any) -> tuple[Any, Any]:
    """Return the answer to JSON, and its head."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read()), answer.headers


def accuracy(answered: Sequence[tuple[str, int, int]]) -> float:
    return float(np.mean([right == given for _, right, given in answered]))
