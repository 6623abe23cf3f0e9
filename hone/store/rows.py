"""Rows of the evaluation set, kept for load tests and promotions: what an artifact is asked in them is what it is for.

They lie beside the store, not in the artifact: an archive, a bento or an image takes none along, serving needs none,
and the artifact's digest says what it computes, as before.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hone.artifact import MANIFEST
from hone.files import atomic_write, hash_file
from hone.signature import as_text

FOLDER = "hone-rows"
MOST_ROWS = 2000
MOST_BYTES = 8_000_000
"""Of the rows of one artifact, before they are compressed; fewer rows are kept when they are larger."""
SEAL, ROW, GIVEN, LABELS = "artifact", "row.", "given.", "labels"


def keep_rows(
    path: Path,
    inputs: Mapping[str, np.ndarray],
    labels: np.ndarray | None = None,
    raw: Mapping[str, np.ndarray] | None = None,
) -> int:
    """Keep the first rows of a data set for a stored artifact, readable by the user alone; return how many.

    Args:
        path: of the artifact in the store: `models/NAME/VERSION`.
        inputs: by name, a row on axis 0.
        labels: of the rows, where there are any: a promotion compares two models on rows that are kept.
        raw: the rows as callers have them, where steps made the inputs of these; files, such as pictures, are not kept.

    Raises:
        OSError: they can't be written.
    """
    rows = min(len(array) for array in inputs.values())
    texts = {name: as_text(array) for name, array in inputs.items()}
    given = {} if raw is None or any(_is_file(array) for array in raw.values()) else raw
    texts |= {f"{GIVEN}{name}": as_text(array) for name, array in given.items()}
    row_bytes = max(1, sum(array.nbytes // max(len(array), 1) for array in texts.values()))
    count = min(rows, MOST_ROWS, MOST_BYTES // row_bytes)
    if not count:
        return 0
    stream = io.BytesIO()
    kept = {name if name.startswith(GIVEN) else f"{ROW}{name}": array[:count] for name, array in texts.items()}
    if labels is not None:
        kept[LABELS] = labels[:count].astype(str) if labels.dtype == object else labels[:count]
    np.savez_compressed(stream, **{SEAL: np.array(hash_file(path / MANIFEST))}, **kept)  # type: ignore[arg-type]
    atomic_write(_file(path), stream.getvalue(), mode=0o600)
    return count


def read_rows(path: Path) -> dict[str, np.ndarray] | None:
    """Return the rows that are kept for a stored artifact; None when there are none, or they are of other content."""
    kept = _read(path)
    return kept and {name.removeprefix(ROW): array for name, array in kept.items() if name.startswith(ROW)}


def read_given(path: Path) -> dict[str, np.ndarray] | None:
    """Return the rows that are kept for a stored artifact as callers have them; None or nothing: there are none."""
    kept = _read(path)
    return kept and {name.removeprefix(GIVEN): array for name, array in kept.items() if name.startswith(GIVEN)}


def _is_file(array: np.ndarray) -> bool:
    return array.dtype.kind == "O" and bool(array.size) and isinstance(array.flat[0], bytes)


def read_labels(path: Path) -> np.ndarray | None:
    """Return the labels of the rows that are kept for a stored artifact; None when there are none."""
    return (_read(path) or {}).get(LABELS)


def _read(path: Path) -> dict[str, np.ndarray] | None:
    try:
        with np.load(_file(path), allow_pickle=False) as archive:
            if str(archive[SEAL]) != hash_file(path / MANIFEST):
                return None
            return {name: archive[name] for name in archive.files if name != SEAL}
    except Exception:  # noqa: BLE001 - a file that can't be read is as none: rows are a help, nothing more
        return None


def forget_rows(path: Path) -> None:
    file = _file(path)
    file.unlink(missing_ok=True)
    if file.parent.is_dir() and not any(file.parent.iterdir()):
        file.parent.rmdir()


def _file(path: Path) -> Path:
    return path.parent.parent.resolve().parent / FOLDER / path.parent.name / f"{path.name}.npz"
