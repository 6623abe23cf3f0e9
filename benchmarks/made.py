"""What a benchmark's figures mean nothing without: when, where, of which code and by which command they were made."""

from __future__ import annotations

import datetime
import shlex
import sys
from typing import Any

from hone.describe.revision import made_by
from hone.hardware import host


def made(module: str) -> dict[str, Any]:
    """Return the fields of a record that say how it was made.

    Args:
        module: of the command, `benchmarks.serving` for one; its arguments are this process's.
    """
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": host(),
        "made_by": made_by(),
        "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
    }
