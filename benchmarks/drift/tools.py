"""Who looks at the streams: Hone here, as `hone drift watch` does, and others in environments of their own."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hone.lifecycle.drift.check import Question, findings_of, looks_of
from hone.processes import output_of
from hone.signature import Signature, TensorSpec
from hone.sketches import folder as sketches
from hone.sketches.reference import References, make_references
from hone.sketches.window import About, Window

from ..peers.description import Detector, Peer
from ..peers.environment import environment
from .judge import Scores, of_columns
from .streams import LEAD, QUIET, RATE, Stream

FIRST_HOUR = 500_000
"""Since 1970, of a stream."""


@dataclass(frozen=True)
class Looked:
    """What a tool said of a stream.

    Attributes:
        scores: by way of calling: on which rows, and what counts as drift.
        seconds: of a look.
    """

    scores: dict[str, Scores]
    seconds: float


def reference_of(stream: Stream) -> References:
    spec = TensorSpec(name="row", dtype="float32", shape=("batch", stream.reference.shape[1]))
    found = make_references(Signature(inputs=(spec,)), {"row": stream.reference}, {}, private=False)
    assert found is not None
    return found


def by_hone(stream: Stream) -> Looked:
    """Look as a watch with its defaults does, at sketches of requests of one row."""
    references = reference_of(stream)
    first = LEAD // RATE
    quiet = _windows(stream.quiet, references, FIRST_HOUR)
    parts = {kind: quiet + _windows(rows, references, FIRST_HOUR + len(quiet)) for kind, rows in stream.ends.items()}
    started = time.perf_counter()
    scores = {QUIET: _called(quiet, references, first - 1)}
    scores |= {kind: _called(windows, references, len(quiet)) for kind, windows in parts.items()}
    seconds = (time.perf_counter() - started) / sum(map(len, scores.values()))
    return Looked({"as shipped": scores}, seconds + _reading(quiet))


def _windows(rows: np.ndarray, references: References, first: int) -> list[Window]:
    found = []
    for number, hour in enumerate(np.split(rows, len(rows) // RATE)):
        window = Window.empty(About("stream", "v1", first + number), references.names)
        window.add(references, [({"row": row[None]}, {}) for row in hour])
        found.append(window)
    return found


def _called(windows: Sequence[Window], references: References, first: int) -> np.ndarray:
    """Return [looks] 1 where a look calls drift; the first is after `first` + 1 hours."""
    called = []
    for place in range(first, len(windows)):
        known = windows[: place + 1]
        looks = looks_of(known, known, Question(), known[-1].about.hour)
        found, _ = findings_of(looks, references, Question())
        called.append(float(any(one.verdict == "missed" for one in found)))
    return np.array(called)


def _reading(windows: Sequence[Window]) -> float:
    """Return the seconds that a look takes to read sketches, which it does once more each time."""
    with tempfile.TemporaryDirectory(prefix="hone-drift-") as folder:
        for window in windows:
            sketches.write(Path(folder), window, "a")
        started = time.perf_counter()
        sketches.read(Path(folder), "stream", windows[-1].about.hour)
        return time.perf_counter() - started


def by_peer(peer: Peer[Detector], root: Path, streams: Sequence[Stream]) -> list[Looked]:
    """Let a peer look at all streams, at the same moments.

    Args:
        root: folder of the peers' environments.

    Raises:
        HoneError: it can't be installed, or its script failed.
    """
    with tempfile.TemporaryDirectory(prefix="hone-peer-") as scratch:
        folder = Path(scratch)
        for stream in streams:
            np.savez(folder / f"{stream.name}.npz", allow_pickle=False, **_given(stream))
        names = [f"{stream.name}.npz" for stream in streams]
        output_of([environment(peer, root), peer.script, *names], peer.name, folder=folder)
        return [_answer(peer, folder / f"{stream.name}.out.npz") for stream in streams]


def _given(stream: Stream) -> dict[str, np.ndarray]:
    columns = reference_of(stream).names
    given = {"reference": stream.reference, "categories": np.array([column.category for column in columns])}
    for part in (QUIET, *stream.ends):
        given[f"rows.{part}"], given[f"looks.{part}"] = stream.looks(part)
    return given


def _answer(peer: Peer[Detector], file: Path) -> Looked:
    with np.load(file, allow_pickle=False) as answer:
        content = dict(answer)
    seconds = float(content.pop("seconds"))
    scores: dict[str, dict[str, np.ndarray]] = {}
    for key, found in content.items():
        rows, part = key.split(".")
        for share in peer.about.shares:
            words = "a column" if not share else f"{share:.0%} of the columns"
            scores.setdefault(f"{words}, last {rows} rows", {})[part] = of_columns(found, share)
    return Looked(dict(scores), seconds)
