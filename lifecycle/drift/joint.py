"""Whether inputs taken together still look like the proof's: a classifier is asked to tell recorded rows from those.

Columns one by one miss what moves between them. The share of new rows that a classifier gets right says how far apart
both kinds are at least: the total variation is no less than twice that share, less 1 (Lopez-Paz and Oquab, Revisiting
classifier two-sample tests, ICLR 2017). The share's bound is exact, so no wrong alarm comes of a poor classifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hone import store
from hone.errors import HoneError, UnavailableError
from hone.evidence.shares import Share
from hone.evidence.shifts import Budget
from hone.signature import Signature, Tensors
from hone.sketches.columns import columns_of, taken, texts
from hone.store.rows import read_rows
from hone.traffic.keys import RecordKey
from hone.traffic.parquet import read_table

from .findings import Joint

MOST_ROWS = 4000
FEWEST = 100
FILES = 50


def joint(
    entry: store.Entry, recorded: Path, since_s: float, threshold: float, budget: Budget, key: RecordKey | None = None
) -> Joint:
    """Return how well recorded inputs are told from the rows that are kept of the proof.

    Args:
        recorded: folder of recorded traffic.
        since_s: the oldest row that counts, seconds since 1970.
        key: of encrypted files.

    Raises:
        HoneError: there are too few rows of either kind, or a column is hidden in the recording.
    """
    artifact = entry.opened()
    proof = read_rows(entry.path)
    if proof is None:
        raise HoneError(f"{entry.tag}: no rows of its proof are kept here; a classifier has nothing to compare with")
    proof = {name: proof[name] for name in artifact.signature.input_names}
    live = recorded_inputs(recorded, entry.name, entry.version, artifact.signature, since_s, key)
    count = min(len(next(iter(proof.values()))), len(next(iter(live.values()))), MOST_ROWS)
    if count < FEWEST:
        raise HoneError(f"{recorded}: {count} rows to tell apart; a classifier takes {FEWEST} of both kinds")
    before, after = _features(artifact.signature, _some(proof, count), _some(live, count))
    right, tried = _told_apart(before, after)
    share = Share(right, tried)
    sure = 1 - min(1 - budget.confidence, budget.a_month / budget.looks)
    low = max(0.0, 2 * share.low(sure) - 1)
    return Joint(share.point, low, count, "missed" if low > threshold else "undecided")


def recorded_inputs(
    folder: Path, model: str, version: str, signature: Signature, since_s: float, key: RecordKey | None = None
) -> Tensors:
    """Return the newest recorded inputs of a model, at most 4000 rows.

    Raises:
        HoneError: there are none, or an input is left out or hashed.
    """
    try:
        import pyarrow as pa
    except ImportError:
        raise UnavailableError("pyarrow is not installed", "pip install 'hone[ops]'") from None
    files = sorted(folder.glob(f"model={model}/version={version}/*.parquet"), reverse=True)
    tables, rows = [], 0
    for file in files[:FILES]:
        if rows >= MOST_ROWS or file.stat().st_mtime < since_s:
            break
        tables.append(read_table(file, key))
        rows += tables[-1].num_rows
    if not rows:
        raise HoneError(f"{folder}: no traffic of {model}:{version} was recorded in this time")
    table = pa.concat_tables(tables, promote_options="default")
    return {spec.name: _tensor(table, f"input.{spec.name}", spec.numpy_dtype, folder) for spec in signature.inputs}


def _tensor(table: Any, name: str, dtype: np.dtype[Any], folder: Path) -> np.ndarray:
    if name not in table.column_names:
        raise HoneError(f"{folder}: {name} is not recorded; rows can't be told apart without it")
    rows = table.column(name).to_pylist()
    if isinstance(rows[0], str) and dtype.kind != "O":
        raise HoneError(f"{folder}: {name} is recorded as a hash; rows can't be told apart with it")
    lengths = {len(row) if isinstance(row, list) else 0 for row in rows}
    if len(lengths) > 1:
        raise HoneError(f"{folder}: {name} has rows of many shapes; a classifier takes one")
    return np.array(rows, dtype)


def _some(tensors: Mapping[str, np.ndarray], count: int) -> Tensors:
    """Return so many rows all over a set."""
    total = len(next(iter(tensors.values())))
    places = np.random.default_rng(0).permutation(total)[:count]
    return {name: array[places] for name, array in tensors.items()}


def _features(signature: Signature, proof: Tensors, live: Tensors) -> tuple[np.ndarray, np.ndarray]:
    """Return [rows, columns] both sets as numbers; categories by their rank in both together."""
    columns = columns_of(signature, proof, {})
    before, after = (taken(columns, one, {}) for one in (proof, live))
    words = [texts(columns, one, {}) for one in (proof, live)]
    places = [place for place, column in enumerate(columns) if column.category]
    for place, first, second in zip(places, *words, strict=True):
        _, codes = np.unique(np.concatenate([first, second]), return_inverse=True)
        before[:, place], after[:, place] = codes[: len(first)], codes[len(first) :]
    return before, after


def _told_apart(before: np.ndarray, after: np.ndarray) -> tuple[int, int]:
    """Return how many rows a classifier gets right of those that it didn't learn from."""
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier
    except ImportError:
        raise UnavailableError("scikit-learn is not installed", "pip install 'hone[trees]'") from None
    half = len(before) // 2
    learn, test = (np.concatenate([before[part], after[part]]) for part in (slice(half), slice(half, 2 * half)))
    kinds = np.repeat([0, 1], half)
    model = HistGradientBoostingClassifier(max_iter=60, random_state=0).fit(learn, kinds)
    return int((model.predict(test) == kinds).sum()), 2 * half
