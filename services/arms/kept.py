"""Splits on disk, beside the store: a service that starts takes up what was in force when it ended."""

from __future__ import annotations

import logging
from pathlib import Path

import orjson

from hone.files import atomic_write
from hone.store import models_dir

from ..http.failures import RequestError
from .split import Split, parse_split

logger = logging.getLogger("hone.serving")

FOLDER = "hone-splits"


def file_of(name: str) -> Path:
    return models_dir().resolve().parent / FOLDER / f"{name}.json"


def keep(split: Split) -> bool:
    """Write a split; return False, with a line in the log, where that isn't possible, as in a read-only image."""
    try:
        atomic_write(file_of(split.model), split.model_dump_json(indent=2) + "\n")
    except OSError as error:
        logger.warning("the split of '%s' ends with the server, it can't be kept: %s", split.model, error)
        return False
    return True


def kept(name: str) -> Split | None:
    """Return the split of a model that was in force last; None, with a line in the log, for one that can't be read."""
    try:
        content = file_of(name).read_text()
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.error("the kept split of '%s' is left out: %s", name, error)
        return None
    try:
        return parse_split(orjson.loads(content))
    except (RequestError, ValueError) as error:
        logger.error("%s is left out: %s", file_of(name), error)
        return None


def forget(name: str) -> None:
    """Remove a split; one that stays because the folder is read-only was never written there."""
    try:
        file_of(name).unlink(missing_ok=True)
    except OSError as error:
        logger.warning("the kept split of '%s' can't be removed: %s", name, error)
