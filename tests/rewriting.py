"""Tests' asserts are rewritten, so that they tell what they compared: once a run, not in each of its processes."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest
from _pytest.assertion import rewrite


def rewrite_once(folder: Path, config: pytest.Config) -> None:
    """Write the tests of a folder as pytest rewrites them where the processes of a run look for them.

    It is half of what collecting takes, and pytest keeps nothing where PYTHONDONTWRITEBYTECODE is set.
    """
    global _config
    _config = config
    stale = [file for file in (*folder.rglob("test_*.py"), *folder.rglob("conftest.py")) if not _fresh(file)]
    if stale:
        # Forked: what this process has read of pytest is there, and no framework is, nor a thread.
        with multiprocessing.get_context("fork").Pool(os.cpu_count()) as pool:
            pool.map(_rewrite, stale)


_config: pytest.Config
"""Of this run; forked processes find it here."""


def _place(file: Path) -> Path:
    return rewrite.get_cache_dir(file) / f"{file.stem}{rewrite.PYC_TAIL}"


def _fresh(file: Path) -> bool:
    return rewrite._read_pyc(file, _place(file)) is not None


def _rewrite(file: Path) -> None:
    source_hash, code = rewrite._rewrite_test(file, _config)
    place = _place(file)
    if rewrite.try_makedirs(place.parent):
        rewrite._write_pyc(_config.stash[rewrite.assertstate_key], code, source_hash, place)
