"""`hone doctor`."""

from __future__ import annotations

import click


@click.command()
@click.argument("model", required=False)
def doctor(model: str | None) -> None:
    """List the runtimes, whether this host can use them, and what to install if not.

    With a stored MODEL: what its deployment to this host would meet. The host of its proof beside this one, what it
    requires, and whether it gives the answers of its proof here. Exit status 3: it doesn't, and no other variant runs.
    """
    if model is not None:
        _deployment(model)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from hone.describe.doctor import runtime_states, tool_states
    from hone.hardware import host

    console = Console()
    facts = host()
    features = ", ".join(facts["cpu_features"]) or "none known"
    console.print(f"[bold]host[/]  {facts['cpu']}, {facts['cores']} cores, {facts['memory_gb']} GB, {facts['system']}")
    console.print(f"      instructions: {features}; GPU: {facts['gpu'] or 'none'}; Python {facts['python']}\n")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("runtime", "usable", "version", "details, or what to do"):
        table.add_column(column, overflow="fold")
    for states, before_remedy in ((runtime_states(), "; "), (tool_states(), ": ")):
        for name, state in states.items():
            text = state.detail if state.usable else escape(f"{state.reason}{before_remedy}{state.remedy}")
            mark = "[green]yes[/]" if state.usable else "[yellow]no[/]"
            table.add_row(name, mark, state.version or "-", text)
        table.add_section()
    console.print(table)


def _deployment(model: str) -> None:
    from hone.describe.deployment import describe, prospects
    from hone.errors import GoldenError, StoreError
    from hone.hardware import host

    click.echo(f"this host: {describe(host())}")
    found = prospects(model)
    for prospect in found:
        click.echo(f"{prospect.tag}: {prospect.problem or 'can be served here'}")
        for what, words in prospect.lines:
            click.echo(f"  {what:<10} {words}")
    served = next((prospect.tag for prospect in found if not prospect.problem), None)
    if served is None:
        problems = "; ".join(f"{prospect.tag}: {prospect.problem}" for prospect in found)
        kind = GoldenError if any(prospect.wrong for prospect in found) else StoreError
        raise kind(f"nothing of {model} can be served on this host: {problems}")
    click.echo(f"this host would serve {served}")
