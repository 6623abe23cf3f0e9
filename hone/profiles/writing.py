"""Files of a profile: the record, the runtime's own trace, and the graph that ONNX Runtime runs."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hone.files import atomic_write
from hone.profiles.measure import Asked, profile
from hone.profiles.record import Profile

RECORD = "profile.json"


def take_and_write(asked: Asked, out: Path | None) -> Profile:
    """Profile an artifact, and write what was found where that is wanted.

    Raises:
        HoneError: as `profile`.
        OSError: a file can't be written.
    """
    with tempfile.TemporaryDirectory(prefix="hone-profile-") as scratch:
        found = profile(asked, Path(scratch))
        if out is not None:
            for file in sorted(Path(scratch).iterdir()):
                atomic_write(out / file.name, file.read_bytes())
            atomic_write(out / RECORD, found.model_dump_json(indent=2) + "\n")
    return found
