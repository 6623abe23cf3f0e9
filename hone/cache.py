"""Where Hone keeps what it can make again: results of passes, engines, timing caches, studies."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return $HONE_CACHE, or `hone` in the user's cache folder."""
    if os.environ.get("HONE_CACHE"):
        return Path(os.environ["HONE_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "hone"
