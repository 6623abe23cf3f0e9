"""`hone doctor`."""

from __future__ import annotations

import click


@click.command()
def doctor() -> None:
    """List the runtimes, whether this host can use them, and what to install if not."""
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
