"""The audit record of commands that change something: who asked for what, before it is done, and what became of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from hone.audit import Audit

Command = Callable[..., Any]
STANDARD_ERROR = 2


def audited(action: str, *subjects: str, unless: tuple[str, ...] = ()) -> Callable[[Command], Command]:
    """Give a command the option --audit-log, and record each run of it there; what can't be recorded isn't done.

    Args:
        action: in the record, such as "models rm".
        subjects: parameters of the command that say what it acts on.
        unless: parameters that, when true, mean that nothing is changed.
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def run(*arguments: Any, audit_log: str | None, **parameters: Any) -> Any:
            if not audit_log or any(parameters[name] for name in unless):
                return command(*arguments, **parameters)
            log = _open(audit_log)
            subject = " ".join(_text(parameters[name]) for name in subjects)
            return _run(log, action, subject, lambda: command(*arguments, **parameters))

        return click.option(
            "--audit-log", envvar="HONE_AUDIT_LOG", help="Record this here, hash-chained. [default: $HONE_AUDIT_LOG]"
        )(run)

    return decorate


def _run(log: Audit, action: str, subject: str, command: Callable[[], Any]) -> Any:
    """Run a command; what it returns, when that is a mapping, says in its record what it did."""
    from hone.audit import operator, recorded

    with recorded(log, operator(), action, subject, lambda text: click.echo(f"warning: {text}", err=True)) as details:
        result = command()
        details.update(result if isinstance(result, Mapping) else {})
    return result


def _open(place: str) -> Audit:
    """Return the log; "-" is standard error here, because standard output holds what a command answers."""
    import tempfile

    from hone.audit import STANDARD_OUTPUT, AuditLog, AuditStream

    if place == STANDARD_OUTPUT:
        return AuditStream(STANDARD_ERROR, Path(tempfile.mkdtemp(prefix="hone-audit-")))
    return AuditLog(Path(place))


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
