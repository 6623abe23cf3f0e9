"""The wheel of the code that serves: what a bento that is built outside of the repository installs."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

from hone import __version__

from .serving_code import serving_code

VERSION = f"{__version__}+serving"
"""A local version: it is not the whole of Hone, and no index has it."""


def write_wheel(folder: Path) -> Path:
    """Write the code that an image gets, as a wheel; return its file.

    It is the code that runs now, from a checkout or installed, so it needs no build tool and no network. It asks for
    no packages: the bento that holds it pins them. The same code gives the same bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    info = f"hone-{VERSION}.dist-info"
    contents = {place: file.read_bytes() for place, file in serving_code().items()}
    contents[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: hone\nVersion: {VERSION}\nSummary: The code of Hone that serves models.\n"
        "License: Apache-2.0\nRequires-Python: >=3.11\n"
    ).encode()
    contents[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: hone\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    lines = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in contents.items()]
    contents[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,", ""]).encode()
    target = folder / f"hone-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return target


def _digest(content: bytes) -> str:
    """Return a hash as RECORD has it: URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
