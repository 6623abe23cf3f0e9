"""Files of a profile: the record, the runtime's own trace, and the graph that ONNX Runtime runs."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hone.artifact import Artifact
from hone.errors import HoneError
from hone.files import atomic_write
from hone.profiles.measure import Asked, profile
from hone.profiles.record import Profile

RECORD = "profile.json"
TRACE_BYTES = 20_000_000
"""Room for a trace; ONNX Runtime writes the weights once more, too, and they are removed again."""


def take_and_write(asked: Asked, out: Path | None) -> Profile:
    """Profile an artifact, and write what was found where that is wanted.

    Raises:
        HoneError: as `profile`, or there is no room for what the runtime writes.
        OSError: a file can't be written.
    """
    with tempfile.TemporaryDirectory(prefix="hone-profile-") as scratch:
        _check_room(Path(scratch), asked.artifact)
        found = profile(asked, Path(scratch))
        if out is not None:
            for file in sorted(Path(scratch).iterdir()):
                atomic_write(out / file.name, file.read_bytes())
            atomic_write(out / RECORD, found.model_dump_json(indent=2) + "\n")
    return found


def _check_room(folder: Path, artifact: Artifact) -> None:
    """ONNX Runtime would say of a full disk that it can't load the model."""
    free, needed = shutil.disk_usage(folder).free, 2 * artifact.manifest.size_bytes + TRACE_BYTES
    if free < needed:
        raise HoneError(
            f"{folder.parent}: {free / 1e6:.0f} MB free, a profile of {artifact.manifest.name} needs "
            f"{needed / 1e6:.0f} MB there for a while; set TMPDIR to another folder"
        )
