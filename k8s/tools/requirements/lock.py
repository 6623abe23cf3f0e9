"""The lines of a lock file for the requirements of models in Python, in the versions that they were proven with."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from hone.artifact import Artifact
from hone.errors import HoneError, UnavailableError
from hone.processes import output_of
from hone.runtimes.python import pins

from ..sbom import read_lock

PYTHON = "3.11"
"""The oldest that an image has; the lock holds for newer ones, too."""


def requirements_lock(
    artifacts: Iterable[Artifact], lock: Path, index_url: str = "", wheels: Path | None = None
) -> str:
    """Return the lines that a lock file lacks for models in Python; none where there is no such model.

    Args:
        artifacts: of the image.
        lock: of the image's kind, whose versions stay.
        index_url: a package mirror; default: uv's own.
        wheels: a folder; nothing is fetched then.

    Raises:
        UnavailableError: uv is not installed.
        HoneError: what the models need doesn't go together, or with the image's packages, or isn't to be had.
    """
    have = {package.name: package.version for package in read_lock(lock)}
    wanted = sorted({pin for artifact in artifacts for pin in pins(artifact)})
    if other := next((pin for pin in wanted if have.get(_name(pin), _version(pin)) != _version(pin)), ""):
        raise HoneError(
            f"a model was proven with {other}, the image has {have[_name(other)]}; install that "
            "version, and prove it again"
        )
    missing = [pin for pin in wanted if _name(pin) not in have]
    if not missing:
        return ""
    with tempfile.TemporaryDirectory(prefix="hone-lock-") as scratch:
        asked, known = Path(scratch) / "requirements.in", Path(scratch) / "constraints.txt"
        asked.write_text("".join(f"{pin}\n" for pin in missing))
        known.write_text("".join(f"{name}=={version}\n" for name, version in have.items()))
        where = ["--no-index", "--find-links", wheels] if wheels else ["--index-url", index_url] if index_url else []
        command = [
            _uv(), "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--python-version", PYTHON,
            "--no-annotate", "--no-header", "--no-emit-index-url", "--no-emit-find-links",
            "-c", known, *where, asked,
        ]  # fmt: skip
        text = output_of(command, f"uv can't lock {', '.join(missing)}, which a model in Python needs: it")
    blocks = re.split(r"\n(?=[A-Za-z0-9])", text.rstrip())
    return "".join(f"{block}\n" for block in blocks if _name(block) not in have)


def _name(pin: str) -> str:
    return pin.partition("==")[0]


def _version(pin: str) -> str:
    return pin.partition("==")[2]


def _uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if found is None:
        raise UnavailableError("uv is not installed, which locks what a model in Python needs", "pip install uv")
    return found
