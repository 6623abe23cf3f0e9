"""The user's training, in a process of its own; run as a module, with a recipe and a folder, it calls a function."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from hone.errors import HoneError, shorten
from hone.processes import why_failed
from hone.recipe import LoadedRecipe
from hone.services import tether

from .parameters import searched

GRACE_S = 10.0
OUT = "HONE_RETRAIN_OUT"
TRIALS = "trials"
"""Folder of a search for the training's parameters, beside the log."""


def trained(loaded: LoadedRecipe, out: Path, log: Path, deadline: float) -> Path | None:
    """Run the recipe's training; return the model that it wrote, None where the source's loader trains.

    Args:
        out: folder for what it writes; made here, anew.
        log: gets all that it prints.
        deadline: of `time.monotonic`, after which it is ended.

    Raises:
        HoneError: it failed, took too long, or wrote no such file.
    """
    spec, source = loaded.recipe.retrain, loaded.recipe.source
    if spec is None or not source.trainable or not (spec.command or spec.call):
        return None

    def train(out: Path, log: Path, variables: Mapping[str, str]) -> Path:
        return _once(loaded, out, log, deadline, variables)

    if spec.search is not None:
        return searched(loaded, spec.search, out, log.with_name(TRIALS), train, deadline)
    return train(out, log, {})


def _once(loaded: LoadedRecipe, out: Path, log: Path, deadline: float, variables: Mapping[str, str]) -> Path:
    """Train, and return what was written.

    Raises:
        HoneError: as `trained`.
    """
    spec, source = loaded.recipe.retrain, loaded.recipe.source
    assert spec is not None
    if spec.command:
        command = shlex.split(spec.command)
    else:
        command = [sys.executable, "-m", "hone.lifecycle.retrain.training", str(loaded.path), str(out)]
    given = {OUT: str(out), **variables}
    ran(command, "retrain.command" if spec.command else "retrain.call", log, deadline, loaded.root, given)
    made = loaded.trained_in(out)
    if made is None:
        name = " or ".join(source.python.files) if source.python else Path(source.file or "").name
        raise HoneError(f"the training ended well, but wrote no {name} to the folder in {OUT}; its log is {log}")
    return made


def ran(
    command: Sequence[str],
    what: str,
    log: Path,
    deadline: float,
    folder: Path,
    variables: Mapping[str, str],
    fine: Sequence[int] = (0,),
) -> int:
    """Run a command that ends with this process, and with its time; return its exit status, one of `fine`.

    Raises:
        HoneError: it failed, or took too long.
    """
    tethered = [sys.executable, tether.__file__, str(os.getpid()), *_found(command, what, folder)]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            tethered, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL, cwd=folder,
            env={**os.environ, **variables}, start_new_session=True,
        )  # fmt: skip
        try:
            status = process.wait(max(0.0, deadline - time.monotonic()))
        except BaseException as error:
            _end(process)
            if isinstance(error, subprocess.TimeoutExpired):
                raise HoneError(f"{what} took longer than retrain.minutes; its log is {log}") from None
            raise
    if status not in fine:
        told = shorten(why_failed(log.read_text(errors="replace")[-20_000:]), 300)
        raise HoneError(f"{what} failed with status {status}: {told}; its log is {log}")
    return status


def _found(command: Sequence[str], what: str, folder: Path) -> list[str]:
    """Return a command with the path of its program; `python` is the one that runs this."""
    program, *arguments = command
    if program in ("python", "python3"):
        return [sys.executable, *arguments]
    found = shutil.which(program) or shutil.which(str(folder / program))
    if found is None:
        raise HoneError(f"{what}: there is no program '{program}'")
    return [str(Path(found).absolute()), *arguments]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it started."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sent)
        except ProcessLookupError:
            return
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            continue
        if sent == signal.SIGKILL:
            return
    process.wait()


def main(recipe: Path, out: Path) -> None:
    """Call the recipe's function."""
    from hone.recipe import load_recipe
    from hone.userload import call, load_function

    loaded = load_recipe(recipe)
    assert loaded.recipe.retrain is not None and loaded.recipe.retrain.call is not None
    reference = loaded.recipe.retrain.call
    try:
        call(load_function(reference, loaded.root, "retrain.call"), reference, "retrain.call", out)
    except HoneError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
