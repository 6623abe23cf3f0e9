"""torch models as LiteRT's, by litert-torch: here where it is installed, else by another Python that has it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from hone.artifact import Artifact
from hone.errors import PassError, UnavailableError
from hone.processes import why_failed
from hone.signature import BATCH

from ...context import PassContext
from .export import save_program

VARIABLE = "HONE_LITERT_TORCH"
SCRIPT = Path(__file__).with_name("to_litert.py")
SECONDS = 3600


def convert(model: Artifact, rows: int, file: Path, context: PassContext) -> int:
    """Write a torch artifact as a `.tflite` file; return the rows that it takes at a time.

    Args:
        rows: that are wanted; 0 is one: litert-torch 0.10 makes no model for any number, as of linear layers.

    Raises:
        PassError: litert-torch can't convert it, or an axis other than the batch's is of any length.
        UnavailableError: no Python here has litert-torch.
    """
    if absent := no_litert_torch():
        raise absent
    if named := [name for name in model.signature.dynamic_axes if name != BATCH]:
        raise PassError(f"axes of any length but the batch's can't be had: {', '.join(named)}; give sizes")
    with tempfile.TemporaryDirectory(prefix="hone-litert-") as scratch:
        arguments = _write(model, rows or 1, Path(scratch), context)
        context.progress("converting with litert-torch")
        done = subprocess.run(
            [_python(), str(SCRIPT), *arguments, str(file)],
            capture_output=True, text=True, timeout=SECONDS, check=False, env=_environment(),
        )  # fmt: skip
    if done.returncode:
        raise PassError(f"litert-torch: {why_failed(done.stderr)}")
    return rows or 1


def _write(model: Artifact, rows: int, folder: Path, context: PassContext) -> tuple[str, str]:
    """Write a module as an exported program, and what it is called with; return both files."""
    from hone.runtimes.torch.calls import calling
    from hone.runtimes.torch.runtime import load_module, load_program

    program, file = folder / "program.pt2", folder / "rows.npz"
    save_program(load_module(model), model.signature, context, program)
    how = calling(load_program(program).module(), model.signature.input_names)
    inputs = {name: np.resize(array, (rows, *array.shape[1:])) for name, array in context.sample.inputs.items()}
    positional, keywords = how.arguments(inputs)
    arrays = {str(place): array for place, array in enumerate(positional)} | keywords
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise PassError("litert-torch takes tensors, and the module takes a nest of them")
    np.savez(file, allow_pickle=False, **arrays)
    return str(program), str(file)


def no_litert_torch() -> UnavailableError | None:
    """Return what is missing for a Python with litert-torch, or None."""
    named = os.environ.get(VARIABLE, "").strip()
    if find_spec("litert_torch"):
        return None
    if not named:
        return UnavailableError(
            "litert-torch is not installed",
            "it takes an environment of its own: uv venv litert; uv pip install --python litert/bin/python "
            f"litert-torch; export {VARIABLE}=$PWD/litert/bin/python",
        )
    if not os.access(named, os.X_OK) or Path(named).is_dir():
        return UnavailableError(f"{VARIABLE}: {named} is no program", "name the Python of an environment")
    return None


def _python() -> str:
    return sys.executable if find_spec("litert_torch") else os.environ[VARIABLE].strip()


def _environment() -> dict[str, str]:
    """What this Python finds its packages by is not for the other."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
