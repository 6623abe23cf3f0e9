"""Which code runs: Hone's version and, in a checkout, its commit."""

from __future__ import annotations

from pathlib import Path

import hone
from hone.errors import HoneError
from hone.processes import output_of

CODE_ROOT = Path(hone.__file__).resolve().parents[1]


def git_revision(*folders: str) -> str:
    """Return the commit of the code, with `-dirty` when these folders were changed since; empty outside a checkout.

    Args:
        folders: at the top of the checkout; none: all of it.
    """
    git = ["git", "-C", str(CODE_ROOT)]
    try:
        if Path(output_of([*git, "rev-parse", "--show-toplevel"], "git").strip()).resolve() != CODE_ROOT:
            return ""  # installed inside somebody's repository
        commit = output_of([*git, "rev-parse", "HEAD"], "git").strip()
        changes = output_of([*git, "status", "--porcelain", "--", *folders], "git").strip()
    except (HoneError, OSError):
        return ""
    return commit + ("-dirty" if changes else "")


def made_by() -> str:
    """Return the version and the commit of what measures: `hone 0.1.0, 1a2b3c4d5e6f`."""
    commit, _, dirty = git_revision("hone", "services", "converters", "benchmarks").partition("-")
    return f"hone {hone.__version__}" + (f", {commit[:12]}{'-' if dirty else ''}{dirty}" if commit else "")
