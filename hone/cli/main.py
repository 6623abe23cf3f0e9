"""The command line's entry: its commands, and how their errors end the process."""

from __future__ import annotations

import os
import shutil
import sys
from signal import SIGINT, SIGTERM
from typing import Any, NoReturn

import click

from hone import __version__
from hone.cli.groups import FoundGroup
from hone.errors import HoneError, one_line
from hone.processes import Terminated, end_quickly, unwind_at_sigterm
from hone.services.deferred import defer

UNEXPECTED = 70  # EX_SOFTWARE of sysexits.h


class Commands(FoundGroup):
    """All commands; an error in one is printed as one line, and its kind is the exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except HoneError as error:
            _fail(error, str(error), error.exit_code)
        except BrokenPipeError as error:
            if _reader_is_gone():
                raise  # click ends without a word, as `| head` wants it
            _fail_unexpected(error)
        except KeyboardInterrupt as error:
            cached = "; finished passes are cached, the next run goes on from there"
            kept = f"; {error}" if str(error) else cached if ctx.invoked_subcommand == "optimize" else ""
            _fail(error, f"interrupted{kept}", 128 + (SIGTERM if isinstance(error, Terminated) else SIGINT))
        except OSError as error:
            _fail(error, _of_the_system(error), 1)
        except Exception as error:  # noqa: BLE001 - people get one line, --debug gets the rest
            _fail_unexpected(error)


def _of_the_system(error: OSError) -> str:
    """Return the file and what is wrong with it; of a tree that couldn't be copied, with the first of its files."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        _, target, why = error.args[0][0]
        return f"{target}: {why.partition('] ')[2].partition(': ')[0] or why}"
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror or one_line(error)}"


def _reader_is_gone() -> bool:
    """True when what is printed goes to a pipe that nobody reads any more; a socket may break, too."""
    import select

    poll = select.poll()
    for stream in (sys.stdout, sys.stderr):
        poll.register(stream, 0)
    return bool(poll.poll(0))


def _fail_unexpected(error: Exception) -> NoReturn:
    _fail(error, f"unexpected {type(error).__name__}: {error}; 'hone --debug' shows the traceback", UNEXPECTED)


def _fail(error: BaseException, message: str, status: int) -> NoReturn:
    """Print one line on standard error and exit; with --debug, raise the error as it is."""
    if os.environ.get("HONE_DEBUG"):
        raise error
    click.echo(f"{click.style('error:', fg='red')} {message}", err=True)
    sys.exit(status)


@click.group(
    cls=Commands,
    package="hone.cli",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="hone")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Optimize trained models under a budget, prove every variant, and serve the best one."""
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    if debug:
        os.environ["HONE_DEBUG"] = "1"


def main() -> None:
    unwind_at_sigterm()
    defer()
    end_quickly()
    cli(prog_name="hone")
