"""TorchScript: a file of torch that no recipe can use, told by its archive before anything of it is loaded."""

from __future__ import annotations

import zipfile
from pathlib import Path


def scripted(file: Path) -> str:
    """Say what to do with a TorchScript file, which is code and weights in one; empty for any other."""
    if not _is_script(file):
        return ""
    return (
        f"{file}: is TorchScript (torch.jit.save), which can't be exported any more; where its class is, write "
        "torch.export.save(torch.export.export(module, example), 'model.pt2'), and give that file"
    )


def _is_script(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return any("/code/__torch__" in name for name in archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile):
        return False
