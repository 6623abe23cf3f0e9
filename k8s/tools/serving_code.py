"""The code that serves models: what an image, and the wheel in a new service's bento, get of Hone.

Nothing of it trains, converts or measures; the command line stays out, too.
"""

from __future__ import annotations

from pathlib import Path

import hone

PACKAGE = Path(hone.__file__).resolve().parent
CODE_ROOT = PACKAGE.parent
PARTS = (
    *("apart", "audit", "evidence", "formats", "golden", "hardware", "recipe"),
    *("runtimes", "services", "sketches", "steps", "store", "traffic"),
)
"""Folders of the package that serving needs, beside the files at its top."""


def serving_code() -> dict[str, Path]:
    """Return the files by their places beside an installation's other packages, `hone/artifact.py` for one.

    In a checkout `hone/services` is a link to the folder above; in what is packed it is a folder.
    """
    files = [*PACKAGE.glob("*.py"), *(file for part in PARTS for file in (PACKAGE / part).rglob("*.py"))]
    return {file.relative_to(CODE_ROOT).as_posix(): file for file in sorted(files)}
