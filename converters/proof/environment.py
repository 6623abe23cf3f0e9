"""A runtime's other version, in an environment of its own in Hone's cache; the user's own environment stays as it is.

The environment has the one package and what that needs. Everything else, Hone among it, it takes from the environment
that it was made by.
"""

from __future__ import annotations

import re
import shutil
import site
import subprocess
import sys
from pathlib import Path

import hone
from hone.cache import cache_dir, check_own
from hone.errors import HoneError, shorten
from hone.files import atomic_directory, locked
from hone.hardware import tool_versions
from hone.processes import why_failed

REQUIREMENT = re.compile(r"(?P<package>[a-z][a-z0-9-]*)==(?P<version>[0-9][0-9A-Za-z.+!-]{0,40})")
PACKAGES = {"onnx": ("onnxruntime", "onnxruntime-gpu"), "openvino": ("openvino",), "litert": ("ai-edge-litert",)}
"""By runtime: the packages of which another version can be proven."""


def python_with(requirement: str, runtime: str) -> Path:
    """Return a Python that has another version of a runtime's package; it is made when it isn't there.

    Args:
        requirement: PACKAGE==VERSION.
        runtime: of the artifact that it is for.

    Raises:
        HoneError: the runtime has no such package, or that version can't be installed.
    """
    found = REQUIREMENT.fullmatch(requirement)
    packages = PACKAGES.get(runtime, ())
    if found is None:
        raise HoneError(f"--with {shorten(requirement)}: give PACKAGE==VERSION, such as onnxruntime==1.22.0")
    if found["package"] not in packages:
        known = " or ".join(f"{package}==VERSION" for package in packages) or "no other version"
        raise HoneError(f"--with {requirement}: an artifact of the {runtime} runtime can be proven with {known}")
    other = next((name for name in packages if name != found["package"] and tool_versions(name)), "")
    if other:
        raise HoneError(f"--with {requirement}: {other} is installed here; give --with {other}=={found['version']}")
    folder = cache_dir() / "environments"
    target = folder / f"{found['package']}-{found['version']}-py{sys.version_info.major}{sys.version_info.minor}"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock"):
        if not (target / "bin" / "python").exists():
            with atomic_directory(target) as partial:
                _make(partial, requirement)
    return check_own(target) / "bin" / "python"


def _make(folder: Path, requirement: str) -> None:
    python = folder / "bin" / "python"
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    try:
        if uv:
            _run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], requirement)
            _run([uv, "pip", "install", "--quiet", "--python", str(python), requirement], requirement)
        else:
            _run([sys.executable, "-m", "venv", "--clear", str(folder)], requirement)
            _run([str(python), "-m", "pip", "install", "--quiet", requirement], requirement)
    except OSError as error:
        raise HoneError(f"--with {requirement}: no environment can be made: {error.strerror}") from None
    # After the package's own: what is there already is not taken from here.
    parents = [*site.getsitepackages(), str(Path(hone.__file__).parents[1])]
    lines = [f"import site; site.addsitedir({parent!r})" for parent in parents]
    packages = next((folder / "lib").glob("python*/site-packages"))
    (packages / "hone-parents.pth").write_text("\n".join(lines) + "\n")


def _run(command: list[str], requirement: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        plain = " ".join(re.sub(r"[^\x20-\x7e\n]", " ", done.stderr).split())
        why = shorten(plain.removeprefix("x ").removeprefix("error: "), 300) if plain else why_failed(done.stdout)
        raise HoneError(f"--with {requirement} can't be installed: {why}")
