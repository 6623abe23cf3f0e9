"""What a host holds that a service needs: room on its disks, and a backup that isn't old."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from hone.records import Finding

FREE_SHARE = 0.1
"""Of a disk: with less, logs, recorded traffic or a new model soon don't fit."""

BACKUPS = "hone-*.tar.gz"
"""Files that `hone backup DIR` writes."""


def backup_age(folder: Path | None, most_days: float) -> Finding:
    """Return whether the newest backup of a folder is young enough.

    Args:
        folder: that `hone backup` writes to; None: it isn't known.
        most_days: that it may be old.
    """
    if folder is None:
        return Finding("backup", "unknown", "where backups lie isn't known", "give the folder: --backups DIR")
    try:
        made = [file.stat().st_mtime for file in folder.glob(BACKUPS)]
    except OSError as error:
        return Finding("backup", "unknown", f"{folder}: {error.strerror}", "run it as a user who may read it")
    remedy = f"hone backup {folder} --keep 7, and have it run each day"
    if not made:
        return Finding("backup", "missing", f"no backup in {folder}", remedy)
    days = (time.time() - max(made)) / 86_400
    detail = f"the newest in {folder} is {days:.1f} days old, {most_days:g} allowed"
    return Finding("backup", "ok", detail) if days <= most_days else Finding("backup", "missing", detail, remedy)


def disk_room(place: Path) -> Finding:
    """Return whether the disk that holds a file or folder has room."""
    try:
        usage = shutil.disk_usage(place)
    except OSError as error:
        return Finding("disk", "unknown", f"{place}: {error.strerror}", "name a folder that is there: --disk DIR")
    detail = f"{place}: {usage.free / 1e9:,.1f} GB free, {usage.free / usage.total:.0%}"
    if usage.free >= FREE_SHARE * usage.total:
        return Finding("disk", "ok", detail)
    return Finding("disk", "failed", f"{detail}, under {FREE_SHARE:.0%}", "remove old runs: hone models rm, out/")
