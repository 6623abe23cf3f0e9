"""Run a command that ends with the process that started it, even when that one is killed: tether.py PARENT COMMAND...

A file of its own, run by a bare interpreter that becomes the command: what has to be said to the kernel between fork
and exec can't be said from a program with threads.
"""

from __future__ import annotations

import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def tether(parent: int) -> None:
    """Ask the kernel for a SIGTERM when the parent ends.

    On Linux only; elsewhere the workers watch: routes/upkeep.py. The kernel means the thread that forked, so a
    server is started from one that stays.
    """
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it ended before that
        raise SystemExit(1)


if __name__ == "__main__":
    tether(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])
