"""The command line as a whole: how commands are found and imported, and what becomes of their errors."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import hone.cli
from hone.cli.groups import places
from hone.cli.main import UNEXPECTED, cli
from hone.errors import BudgetError, HoneError
from tests.servers import ROOT

FOLDER = Path(hone.cli.__file__).parent
FILES = sorted(file for file in FOLDER.glob("*/*.py") if file.name != "__init__.py")
ELSEWHERE = [ROOT / "services" / "status" / "command.py"]
"""Commands that also run where there is no command line, in an image."""


def run_here(*arguments: str, then: str) -> list[str]:
    """Return what a fresh process prints that runs a command, then the code."""
    code = (
        f"import sys\nfrom hone.cli.main import cli\ntry:\n    cli({list(arguments)!r})\n"
        f"except SystemExit:\n    pass\n{then}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()


HEAVY = "print([name for name in ('numpy', 'pydantic', 'bentoml', 'rich', 'torch', 'jinja2') if name in sys.modules])"


@pytest.mark.parametrize("command", ["", *sorted(places("hone.cli"))])
def test_help_imports_nothing_heavy(command: str) -> None:
    assert run_here(*command.split(), "--help", then=HEAVY)[-1] == "[]"


def test_a_command_imports_its_own_file_only() -> None:
    loaded = f"print([name for name in {sorted(places('hone.cli').values())!r} if name in sys.modules])"
    assert run_here("keys", "--help", then=loaded)[-1] == "['hone.cli.services.keys']"


def test_every_file_is_a_command() -> None:
    """No two of a name, and each holds a command under its file's name."""
    assert sorted(places("hone.cli")) == sorted(file.stem for file in FILES)
    context = click.Context(cli)
    for file in FILES:
        command = cli.get_command(context, file.stem)
        assert command is not None and command.name == file.stem
        assert command.get_short_help_str(), f"{file}: its docstring is its help"


def test_a_new_file_is_a_new_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "commands_of_a_test"
    (package / "room").mkdir(parents=True)
    for folder in (package, package / "room"):
        (folder / "__init__.py").touch()
    (package / "room" / "greet.py").write_text(
        'import click\n\n\n@click.command()\ndef greet():\n    """Say hello."""\n    click.echo(\'hello\')\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    group = type(cli)(name="test", package="commands_of_a_test")
    assert "greet  Say hello." in CliRunner().invoke(group, ["--help"]).output
    assert CliRunner().invoke(group, ["greet"]).output == "hello\n"


def test_misspelled_command_names_the_nearest() -> None:
    result = CliRunner().invoke(cli, ["optimise"])
    assert result.exit_code == 2 and "no command 'optimise'; did you mean 'optimize'?" in result.output
    within = CliRunner().invoke(cli, ["models", "lst"])
    assert within.exit_code == 2 and "no command 'lst'; did you mean 'list'?" in within.output


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (BudgetError("no variant meets the budget"), 3, "error: no variant meets the budget"),
        (FileNotFoundError(2, "No such file or directory", "x.json"), 1, "error: x.json: No such file or directory"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (
            shutil.Error([("a", "b/c", str(OSError(28, "No space left on device", "a", None, "b/c"))), ("d", "e", "")]),
            1,
            "error: b/c: No space left on device\n",
        ),
        (ZeroDivisionError("why"), UNEXPECTED, "error: unexpected ZeroDivisionError: why; 'hone --debug'"),
    ],
)
@pytest.mark.parametrize("path", [["fail"], ["group", "fail"]])
def test_error_is_one_line_and_a_status(path: list[str], error: BaseException, status: int, told: str) -> None:
    @click.command()
    def fail() -> None:
        raise error

    class Root(type(cli)):  # type: ignore[misc]
        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
            return {"fail": fail, "group": click.Group("group", {"fail": fail})}.get(cmd_name)

    result = CliRunner().invoke(Root(name="test", package="hone.cli"), path)
    assert result.exit_code == status
    assert result.stderr.startswith(told) and len(result.stderr.splitlines()) == 1


def test_interrupted_optimization_says_what_is_kept() -> None:
    @click.command()
    def optimize() -> None:
        raise KeyboardInterrupt

    class Root(type(cli)):  # type: ignore[misc]
        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
            return optimize

    result = CliRunner().invoke(Root(name="test", package="hone.cli"), ["optimize"])
    assert result.exit_code == 130
    assert result.stderr == "error: interrupted; finished passes are cached, the next run goes on from there\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def broken(:", "SyntaxError: invalid syntax"),
        ("other = 1", "AttributeError: module 'commands_of_a_test.room.broken' has no attribute 'broken'"),
    ],
)
def test_file_that_cannot_be_imported_spoils_its_own_command_alone(
    text: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = tmp_path / "commands_of_a_test" / "room"
    room.mkdir(parents=True)
    for folder in (room.parent, room):
        (folder / "__init__.py").touch()
    (room / "broken.py").write_text(text)
    (room / "greet.py").write_text("import click\n\n\n@click.command()\ndef greet():\n    click.echo('hello')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith("commands_of_a_test")]:
        monkeypatch.delitem(sys.modules, name)
    places.cache_clear()
    group = type(cli)(name="test", package="commands_of_a_test")
    told = CliRunner().invoke(group, ["--help"])
    assert told.exit_code == 0 and "can't be imported" in told.output
    assert CliRunner().invoke(group, ["greet"]).output == "hello\n"
    for arguments in (["broken"], ["broken", "--help", "x"]):
        result = CliRunner().invoke(group, arguments)
        assert result.exit_code == HoneError.exit_code
        assert result.stderr.startswith("error: commands_of_a_test.room.broken can't be imported: " + why)
        assert len(result.stderr.splitlines()) == 1
    places.cache_clear()


@pytest.mark.parametrize("file", [*FILES, *ELSEWHERE], ids=lambda file: file.stem)
def test_what_is_imported_at_the_top_is_light(file: Path) -> None:
    """Each command's file is imported to show one line about it."""
    tops = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in tops}
    ours = {str(name) for name in names if str(name).startswith("hone.")}
    light = ("hone.cli", "hone.errors", "hone.names", "hone.services.status.command")
    assert {name for name in ours if not name.startswith(light)} == set()
