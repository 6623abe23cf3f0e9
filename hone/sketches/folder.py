"""A folder of sketches: `model=NAME/version=VERSION/HOUR/WORKER.sketch`, each file whole, the oldest hours removed."""

from __future__ import annotations

import contextlib
import datetime
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hone.errors import HoneError
from hone.files import atomic_write

from .bucket import Bucket, address_of
from .window import About, BrokenSketchError, Window, decode

SUFFIX = ".sketch"
HOUR_S = 3600
STAMP = "%Y%m%dT%H"


@dataclass
class Found:
    """What a folder holds of a model.

    Attributes:
        windows: merged over workers, by hour and version.
        problems: a line for each file or hour that was left out, and why.
    """

    windows: list[Window] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def check_folder(folder: Path) -> None:
    """Make the folder of sketches, private to the user; of an object store, see that it can be written to.

    Raises:
        HoneError: it can't be made or written to.
    """
    if address := address_of(folder):
        Bucket(address).check()
        return
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise HoneError(f"{folder}: sketches of traffic can't be kept there: {error.strerror}") from None


def stamp(hour: int) -> str:
    """Return an hour since 1970 as `20261231T23`, UTC."""
    return datetime.datetime.fromtimestamp(hour * HOUR_S, datetime.UTC).strftime(STAMP)


def parse_stamp(text: str) -> int | None:
    """Return the hour since 1970 that a name stands for; None when it stands for none."""
    try:
        moment = datetime.datetime.strptime(text, STAMP).replace(tzinfo=datetime.UTC)
    except ValueError:
        return None
    return int(moment.timestamp()) // HOUR_S


def write(folder: Path, window: Window, worker: str) -> Path:
    """Write a worker's window by rename, over the one that it wrote before.

    Raises:
        OSError: it can't be written.
    """
    about = window.about
    place = folder / f"model={about.model}" / f"version={about.version}" / stamp(about.hour)
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = place / f"{worker}{SUFFIX}"
    atomic_write(file, window.encode(), mode=0o600, durable=False)
    return file


def read(folder: Path, model: str, now_hour: int, version: str | None = None, since: int = 0) -> Found:
    """Return the windows of a model, or of one version of it, the oldest first.

    What can't be read costs itself only: a file that is cut off or broken, an hour that is still to come because a
    clock was wrong, and sketches by another reference than the hour's first.

    Args:
        now_hour: hours since 1970.
        since: the first hour.
    """
    found = Found()
    for hour, place in _hours(folder, model, version):
        if hour < since:
            continue
        if hour > now_hour:
            found.problems.append(f"{place}: an hour that is still to come; the clock of its writer was wrong")
            continue
        merged: Window | None = None
        for file in sorted(place.glob(f"*{SUFFIX}")):
            try:
                window = decode(file.read_bytes(), file)
                if merged is not None and window.about.reference != merged.about.reference:
                    raise BrokenSketchError(f"{file}: sketches by another reference than those beside it")
            except BrokenSketchError as error:
                found.problems.append(str(error))
                continue
            except OSError as error:
                found.problems.append(f"{file}: {error.strerror or error}")
                continue
            if merged is None:
                merged = window
            else:
                merged.merge(window)
        if merged is not None:
            found.windows.append(merged)
    return found


def remove_oldest(folder: Path, max_bytes: int, max_days: float, now_hour: int) -> None:
    """Remove the oldest hours until the rest is small and young enough; the newest of all stays."""
    hours = sorted(_hours(folder, "*", None))
    sizes = [sum(file.stat().st_size for file in place.iterdir()) for _, place in hours]
    total, oldest = sum(sizes), now_hour - max_days * 24 if max_days else 0
    for (hour, place), size in zip(hours[:-1], sizes[:-1], strict=True):
        if total <= max_bytes and hour >= oldest:
            return
        shutil.rmtree(place, ignore_errors=True)
        with contextlib.suppress(OSError):
            place.parent.rmdir()
        total -= size


def models(folder: Path) -> list[str]:
    """Return the models that a folder holds windows of."""
    return sorted({place.name.removeprefix("model=") for place in folder.glob("model=*")})


def _hours(folder: Path, model: str, version: str | None) -> Iterator[tuple[int, Path]]:
    places = folder.glob(f"model={model}/version={version or '*'}/*")
    known = ((parse_stamp(place.name), place) for place in places)
    return iter(sorted((hour, place) for hour, place in known if hour is not None))


def about(model: str, version: str, now_s: float, reference: str) -> About:
    """Return whose the rows are that are answered now."""
    return About(model, version, int(now_s) // HOUR_S, reference)
