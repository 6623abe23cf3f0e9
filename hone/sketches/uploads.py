"""Files of sketches on their way to an object store: they wait in a folder of the worker while it doesn't answer."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path, PurePosixPath

from .bucket import Bucket, address_of
from .folder import parse_stamp


class Uploads:
    """Puts files into a store once they are written.

    Args:
        place: an address, as a path.

    Attributes:
        folder: that files are written to first.
        waiting: files that the store lacks.

    Raises:
        HoneError: the store can't be used.
    """

    def __init__(self, place: Path) -> None:
        self._bucket = Bucket(address_of(place))
        self.folder = Path(tempfile.mkdtemp(prefix="hone-sketches-"))
        self.waiting: set[Path] = set()

    def put(self, now_hour: int) -> None:
        """Put what waits into the store; those of hours that are over go from the folder.

        Raises:
            OSError: the store doesn't take one; that and the others wait on.
        """
        for file in sorted(self.waiting):
            if file.is_file():
                self._bucket.put(self.folder, file)
                if (hour := parse_stamp(file.parent.name)) is not None and hour < now_hour:
                    file.unlink(missing_ok=True)
            self.waiting.discard(file)

    def remove_before(self, hour: float) -> None:
        """Remove files of older hours from the store, of all workers.

        Raises:
            OSError: they can't be.
        """
        hours = {name: parse_stamp(PurePosixPath(name).parent.name) for name in self._bucket.names()}
        self._bucket.remove([name for name, of in hours.items() if of is not None and of < hour])

    def close(self) -> None:
        """Remove the folder, unless something waits in it."""
        if not self.waiting:
            shutil.rmtree(self.folder, ignore_errors=True)
