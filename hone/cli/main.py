"""The command line. Every command imports what it needs when it runs, so that `hone --help` is instant."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from hone import __version__
from hone.cli.auditing import audited
from hone.errors import BudgetError, HoneError, one_line

UNEXPECTED = 70  # EX_SOFTWARE of sysexits.h


class HoneGroup(click.Group):
    """A command group that prints errors as one line and suggests the nearest command for a misspelled one."""

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
            _fail(error, "interrupted; finished passes are cached, the next run goes on from there", 130)
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            _fail(error, f"{place}{error.strerror or one_line(error)}", 1)
        except Exception as error:  # noqa: BLE001 - people get one line, --debug gets the rest
            _fail_unexpected(error)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        from hone.errors import did_you_mean

        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise click.UsageError(f"no command '{args[0]}'{did_you_mean(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


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


@click.group(cls=HoneGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="hone")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Optimize trained models under a budget, prove every variant, and serve the best one."""
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    if debug:
        os.environ["HONE_DEBUG"] = "1"


@cli.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the report. [default: out/NAME]")
@click.option(
    "--only",
    multiple=True,
    metavar="VARIANT",
    help="Make only this variant; may be repeated. Reports to out/NAME/only.",
)
@click.option("--force", is_flag=True, help="Run every pass again, cached or not.")
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Passes to run at the same time.")
@click.option("--no-store", is_flag=True, help="Report only; put nothing into the model store.")
@click.option(
    "--search", is_flag=True, help="Try other passes and options, too, and prove the best beside the recipe's."
)
@click.option(
    "--minutes", type=click.FloatRange(0.5), default=10.0, show_default=True, help="Time limit of --search, in all."
)
@audited("optimize", "recipe", unless=("dry_run", "no_store"))
def optimize(
    recipe: Path,
    out: Path | None,
    only: tuple[str, ...],
    force: bool,
    dry_run: bool,
    jobs: int,
    no_store: bool,
    search: bool,
    minutes: float,
) -> None:
    """Make, prove and rank the variants of RECIPE; store the best.

    With --search chains of passes are chosen by trying them; a search that is run again goes on where it ended.
    Exits with status 3 when no variant meets the budget.
    """
    from hone.cli.terminal import print_plan, run_optimize, run_search
    from hone.converters.run.optimize import Request

    if search and (only or dry_run):
        raise click.UsageError("--search chooses variants itself; leave --only and --dry-run out")

    if dry_run:
        print_plan(recipe, only)
        return
    request = Request(recipe, only, force, jobs, not no_store)
    report = run_search(request, out, minutes) if search else run_optimize(request, out)
    if report.winner is None:
        raise BudgetError(f"{recipe}: no variant meets the budget; the table says why, for each")


@cli.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Where to write it. [default: recipe.yaml beside MODEL]")
@click.option("--name", help="The model's name in the store. [default: the file's name]")
def init(model: Path, out: Path | None, name: str | None) -> None:
    """Write a commented recipe for a MODEL file."""
    from hone.converters.recipes.init import write_recipe

    written = write_recipe(model, out, name=name)
    data = f"kept {written.data}" if written.kept_data else f"wrote {written.data}"
    click.echo(
        f"wrote {written.recipe}, {data}; fill in what is marked TODO in both, then: hone optimize {written.recipe}"
    )


@cli.command()
@click.argument("model")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True)
@click.option("--workers", default="1", show_default=True, help="Worker processes, or auto: measured.")
@click.option("--and", "models", multiple=True, metavar="MODEL", help="Serve this model too; may be repeated.")
@click.option("--threads", type=click.IntRange(1), help="Threads of one inference. [default: measured]")
@click.option("--max-batch-rows", type=click.IntRange(1), help="Most rows of a batch. [default: measured]")
@click.option("--max-body-mb", type=click.FloatRange(min=0, min_open=True), help="Largest request body accepted.")
@click.option("--grpc-port", type=click.IntRange(1, 65535), help="Serve the V2 protocol over gRPC here too.")
@click.option("--cache-mb", type=click.FloatRange(min=0), help="Keep so many MB of predictions. [default: 0]")
@click.option(
    "--api-keys",
    type=click.Path(dir_okay=False, resolve_path=True),
    help="Let only callers in who show a key of this file.",
)
@click.option(
    "--audit-log", type=click.Path(dir_okay=False, resolve_path=True), help="Write admin actions here, hash-chained."
)
@click.option("--insecure", is_flag=True, default=None, help="Serve other addresses than loopback without keys.")
@click.option("--trust-code", is_flag=True, default=None, help="Serve a model that brings code, wherever it is from.")
@click.option(
    "--trusted-keys", type=click.Path(exists=True), help="Serve only what a public key in this folder signed."
)
@click.option(
    "--ssl-certfile",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True),
    help="Serve HTTPS with this certificate.",
)
@click.option(
    "--ssl-keyfile", type=click.Path(exists=True, dir_okay=False, resolve_path=True), help="The certificate's key."
)
def serve(model: str, host: str, port: int, workers: str, models: tuple[str, ...], **options: Any) -> None:
    """Serve a stored MODEL with BentoML.

    MODEL is NAME (the best variant of the newest run that this host can run), NAME:VARIANT or a full tag. Everything
    else that can be set is an environment variable: docs/serving.md.
    """
    from hone.services.launch import serve as launch

    certificate = (options.pop("ssl_certfile"), options.pop("ssl_keyfile"))
    sys.exit(launch(model, host=host, port=port, workers=workers, models=models, certificate=certificate, **options))


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


@cli.group(cls=DefaultGroup, default="load")
def bench() -> None:
    """Load-test a model: `hone bench MODEL`, or search its capacity: `hone bench capacity MODEL --p99 50ms`."""


def _add_bench_commands() -> None:
    from hone.cli.bench import BENCH_COMMANDS

    for command in BENCH_COMMANDS:
        bench.add_command(command)


@cli.command()
def doctor() -> None:
    """List the runtimes, whether this host can use them, and what to install if not."""
    from hone.inspect.doctor import print_doctor

    print_doctor()


@cli.command()
@click.option("--out", type=click.Path(path_type=Path), help="Write to a file instead of standard output.")
@click.option("--markdown", is_flag=True, help="The reference for people instead.")
def schema(out: Path | None, markdown: bool) -> None:
    """Print the JSON Schema of recipes, for editors."""
    from hone.converters.recipes.reference import recipe_reference
    from hone.converters.recipes.schema import recipe_schema
    from hone.files import atomic_write

    text = recipe_reference() if markdown else recipe_schema()
    if out:
        atomic_write(out, text)
    else:
        click.echo(text, nl=False)


@cli.command()
@click.argument("report", type=click.Path(path_type=Path))
def report(report: Path) -> None:
    """Draw report.html anew from a report.json."""
    from hone.converters.report.page import write_html
    from hone.converters.report.records import read_report

    click.echo(f"wrote {write_html(read_report(report), report.parent)}")


@cli.group(cls=HoneGroup)
def new() -> None:
    """Write files to start from: `hone new service NAME MODEL...`."""


@cli.group(cls=HoneGroup)
def keys() -> None:
    """Make, list and remove API keys."""


@cli.group(cls=HoneGroup)
def audit() -> None:
    """Check the log of admin actions, and recorded traffic."""


@cli.group(cls=HoneGroup)
def models() -> None:
    """Look after the model store."""


@cli.group(cls=HoneGroup)
def k8s() -> None:
    """Manifests with measured numbers, and the dashboard."""


@cli.group(cls=HoneGroup)
def deploy() -> None:
    """Check a cluster before a deployment."""


@cli.group(cls=DefaultGroup, default="create")
def backup() -> None:
    """Write a backup: `hone backup FILE.tar.gz`, or check one: `hone backup verify FILE`."""


def _add_backup_commands() -> None:
    from hone.cli.backup import BACKUP_COMMANDS, restore

    cli.add_command(restore)
    for command in BACKUP_COMMANDS:
        backup.add_command(command)


def _add_deploy_commands() -> None:
    from hone.cli.deploy import DEPLOY_COMMANDS, K8S_COMMANDS, containerize

    cli.add_command(containerize)
    for command in K8S_COMMANDS:
        k8s.add_command(command)
    for command in DEPLOY_COMMANDS:
        deploy.add_command(command)


def _add_security_commands() -> None:
    from hone.cli.security import AUDIT_COMMANDS, KEY_COMMANDS

    for command in KEY_COMMANDS:
        keys.add_command(command)
    for command in AUDIT_COMMANDS:
        audit.add_command(command)


def _add_model_commands() -> None:
    from hone.cli.models import COMMANDS

    for command in COMMANDS:
        models.add_command(command)


def _add_new_commands() -> None:
    from hone.cli.new import NEW_COMMANDS

    for command in NEW_COMMANDS:
        new.add_command(command)


_add_bench_commands()
_add_new_commands()
_add_model_commands()
_add_security_commands()
_add_deploy_commands()
_add_backup_commands()


def main() -> None:
    cli(prog_name="hone")
