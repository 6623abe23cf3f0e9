"""Steps and callers' rows as files: into an artifact, and as arrays that an .npz file holds without pickles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from hone.signature import as_objects, as_text
from hone.steps.base import Columns, located
from hone.steps.record import PostStep, PreStep, Steps, files_of

FOLDER = "steps"
"""Of an artifact, with the files that its steps name."""
CONTENT, ENDS = ".bytes", ".ends"


def packed_steps(steps: Steps, root: Path) -> tuple[Steps, dict[str, Path]]:
    """Return a recipe's steps as an artifact has them, and the files that go into it by their places there.

    Args:
        steps: of the recipe.
        root: that their files are named from.
    """
    files: dict[str, Path] = {}

    def moved(one: PreStep | PostStep, place: str) -> PreStep | PostStep:
        changes = {}
        for field, name in files_of(one.step).items():
            last = PurePosixPath(name.rpartition(":")[2]).name
            changes[field] = f"{FOLDER}/{place}-{last}"
            files[changes[field]] = located(root, name)
        return type(one)(**{one.kind: one.step.model_copy(update=changes)})

    before = tuple(moved(one, f"pre-{index}") for index, one in enumerate(steps.preprocess))
    after = tuple(moved(one, f"post-{index}") for index, one in enumerate(steps.postprocess))
    return Steps.model_validate({"preprocess": before, "postprocess": after}), files


def packed_columns(columns: Columns, prefix: str) -> Columns:
    """Return columns as arrays without objects, under their names behind a prefix."""
    found: Columns = {}
    for name, array in columns.items():
        if array.dtype.kind == "O" and array.size and isinstance(array.flat[0], bytes):
            found[f"{prefix}{name}{CONTENT}"] = np.frombuffer(b"".join(array.tolist()), np.uint8)
            found[f"{prefix}{name}{ENDS}"] = np.cumsum([len(item) for item in array.tolist()])
        else:
            found[f"{prefix}{name}"] = as_text(array)
    return found


def unpacked_columns(arrays: Mapping[str, np.ndarray], prefix: str) -> Columns:
    """Return the columns that `packed_columns` put under a prefix.

    Raises:
        ValueError, KeyError: they aren't as it writes them.
    """
    found: Columns = {}
    for key in arrays:
        name = key.removeprefix(prefix)
        if not key.startswith(prefix) or key.endswith(ENDS):
            continue
        if not key.endswith(CONTENT):
            found[name] = as_objects(arrays[key])
            continue
        name = name.removesuffix(CONTENT)
        content = arrays[key].astype(np.uint8, casting="safe").tobytes()
        ends = [int(end) for end in arrays[f"{prefix}{name}{ENDS}"]]
        items = np.empty(len(ends), dtype=object)
        for index, end in enumerate(ends):
            items[index] = content[ends[index - 1] if index else 0 : end]
        found[name] = items
    return found
