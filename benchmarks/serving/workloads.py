"""What servers are asked: models, rows, and how many callers at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hone.hardware import cores

from ..load.wire import Call
from ..peers.payloads import Decode, Inputs, call

Scenario = tuple[str, int]
"""A payload, `json-1` or `binary-64` for one, and the number of connections."""


@dataclass(frozen=True)
class Workload:
    """What one model is asked.

    Attributes:
        model: name in the store.
        reference: of the artifact that all serve.
        threads: of ONNX Runtime in the peers; Hone measures its own.
        scenarios: one after the other.
        rows: makes so many rows.
        mixed: makes requests of several lengths, where the model takes such.
        tolerance: of answers, against ONNX Runtime's: a share of the largest number.
    """

    model: str
    reference: str
    threads: int
    scenarios: tuple[Scenario, ...]
    rows: Callable[[int], Inputs]
    mixed: Callable[[], list[Inputs]] | None = None
    tolerance: float = 1e-3


def digits_rows(count: int) -> Inputs:
    """Return images of noise, always the same."""
    return {"image": np.random.default_rng(0).random((count, 1, 8, 8)).astype(np.float32)}


def text_rows(count: int, tokens: int = 32, seed: int = 0) -> Inputs:
    """Return texts of random tokens, always the same for a seed."""
    ids = np.random.default_rng(seed).integers(1000, 29000, (count, tokens))
    ids[:, 0], ids[:, -1] = 101, 102  # a text's begin and end
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def mixed_texts() -> list[Inputs]:
    """Return 96 texts of 8 to 256 tokens, short ones more often, as real texts are."""
    lengths = np.exp(np.random.default_rng(1).uniform(np.log(8), np.log(256), 96)).round().astype(int)
    return [text_rows(1, int(length), seed) for seed, length in enumerate(lengths)]


DIGITS = Workload(
    "digits",
    "digits:onnx-int8-static",
    1,
    (
        *(("binary-1", connections) for connections in (1, 8, 32, 128)),
        *(("json-1", connections) for connections in (1, 8, 32, 128)),
        ("binary-64", 8),
    ),
    digits_rows,
)
MINILM = Workload(
    "minilm",
    "minilm:onnx-int8-dynamic",
    cores(),
    (("binary-1", 32), ("mixed-1", 32)),
    text_rows,
    mixed_texts,
    0.15,
)
WORKLOADS = {"digits": DIGITS, "minilm": MINILM}


def rows_of(payload: str) -> int:
    """Return the rows in each request of a payload."""
    return int(payload.partition("-")[2])


def calls_of(server: str, workload: Workload, payload: str) -> list[tuple[Call, Decode, Inputs]]:
    """Return a server's requests of a payload, with what reads the answers and what was asked; none when it doesn't
    offer it."""
    kind = payload.replace("mixed", "binary")
    if payload.startswith("mixed"):
        requests = workload.mixed() if workload.mixed is not None else []
    else:
        requests = [workload.rows(rows_of(payload))]
    made = [(call(server, workload.model, inputs, kind), inputs) for inputs in requests]
    return [(found[0], found[1], inputs) for found, inputs in made if found is not None]
