"""Groups of commands: files that are found and imported late, misspelled names, commands that needn't be named."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import Any

import click

from hone.errors import HoneError, did_you_mean, one_line


class HoneGroup(click.Group):
    """A group that suggests the nearest command for a misspelled one."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise click.UsageError(f"no command '{args[0]}'{did_you_mean(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


class DefaultGroup(HoneGroup):
    """A group of which one command is meant when none is named: `hone bench MODEL` beside `hone bench capacity`."""

    def __init__(self, *args: Any, default: str, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self._default = default

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None:
            args = [self._default, *args]
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0].startswith("-") and args[0] not in ("-h", "--help"):
            args = [self._default, *args]
        return super().parse_args(ctx, args)


class FoundGroup(HoneGroup):
    """A group whose commands lie in the folders of a package, each in a file of its name, imported when it is wanted.

    It is the pattern of click's documentation, "Lazily Loading Subcommands", with files in place of a list.
    """

    def __init__(self, *args: Any, package: str, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self._package = package

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(places(self._package))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = places(self._package).get(cmd_name)
        if place is None:
            return None
        try:
            command: click.Command = getattr(importlib.import_module(place), cmd_name)
        except Exception as error:  # noqa: BLE001 - the other commands, and the help, work all the same
            return _broken(cmd_name, place, error)
        return command


def _broken(name: str, place: str, error: Exception) -> click.Command:
    """Return a command that says why its file can't be imported."""
    why = f"{place} can't be imported: {type(error).__name__}: {one_line(error)}"

    def fail(**_: object) -> None:
        raise HoneError(why) from error

    anything = {"ignore_unknown_options": True}
    arguments: list[click.Parameter] = [click.Argument(["arguments"], nargs=-1)]
    return click.Command(name, anything, fail, arguments, help=why, short_help=why, add_help_option=False)


@cache
def places(package: str) -> dict[str, str]:
    """Return the modules in the folders of a package, by the name of the file, which is that of its command.

    Folders in these folders hold what several commands share.
    """
    found = {}
    for folder in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        if folder.ispkg:
            inside = importlib.import_module(folder.name).__path__
            files = (file.name for file in pkgutil.iter_modules(inside) if not file.ispkg)
            found.update({name: f"{folder.name}.{name}" for name in files})
    return found
