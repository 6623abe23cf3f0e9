"""Copies of this checkout, with the files that git tracks or would: for tests that build, install or change one."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.servers import ROOT


@cache
def tracked() -> tuple[str, ...]:
    """Return the files of the checkout by their paths; links are files, and what git ignores is none."""
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip("this is no checkout of git")
    return tuple(name for name in done.stdout.split("\0") if name and _is_there(ROOT / name))


def copy_checkout(target: Path, *places: str) -> Path:
    """Copy the files below some places, all by default, into a new folder; links stay links. Return the folder."""
    for name in tracked():
        if not places or any(name == place or name.startswith(f"{place}/") for place in places):
            file = target / name
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, file, follow_symlinks=False)
    return target


def _is_there(file: Path) -> bool:
    return file.exists() or file.is_symlink()
