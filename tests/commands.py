"""Commands in the tests' own process, which has imported already what they need."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

from click.testing import CliRunner

from hone.cli.main import cli


def hone(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder; its status and what it prints are those of a process of its own."""
    given = [str(argument) for argument in arguments]
    with contextlib.chdir(cwd):
        done = CliRunner().invoke(cli, given, prog_name="hone")
    return subprocess.CompletedProcess(given, done.exit_code, done.stdout, done.stderr)
