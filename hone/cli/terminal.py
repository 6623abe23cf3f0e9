"""What `hone optimize` shows on the terminal: the plan, progress, and the table of results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.tree import Tree

from hone.converters.report.page import write_report
from hone.converters.report.records import Percentiles, Report, VariantReport
from hone.converters.run.candidates.choose import Chosen
from hone.converters.run.optimize import Display, Request, optimize, plan_of, report_folder
from hone.converters.run.pipeline import Progress as PassProgress
from hone.converters.run.plan import Node, Plan
from hone.errors import HoneError
from hone.files import check_writable
from hone.recipe import load_recipe

console = Console(stderr=True)
TABLE_WIDTH = 134  # columns the table needs; a narrower terminal wraps lines rather than lose figures


def print_plan(recipe: Path, only: tuple[str, ...]) -> None:
    """Print the tree of passes, and for `variants: auto` what it stands for and why; only the float graph is made."""
    name = load_recipe(recipe).recipe.name
    with console.status("reading the recipe") as status:
        plan, chosen = plan_of(recipe, only, lambda text: status.update(escape(text)))
    tree = Tree(f"[bold]{name}[/] ({plan.source})")
    branches = {id(None): tree}
    for node in plan.nodes:
        parent = branches[id(node.parent)] if node.parent else tree
        ends = [name for name, leaf in plan.leaves.items() if leaf is node]
        branches[id(node)] = parent.add(f"{node.step.name}{_changed_options(node)}  [green]{'  '.join(ends)}[/]")
    Console().print(tree)
    for variant in plan.variants:
        if variant.unavailable:
            reason = escape(str(variant.unavailable))
            Console().print(f"skipped [yellow]{variant.name}[/]: {reason}", highlight=False, soft_wrap=True)
    if chosen is not None:
        _print_choice(chosen)


def _print_choice(chosen: Chosen) -> None:
    """Print what `auto` looked at, and of each preset why it is made or left out."""
    out = Console()
    for line in chosen.facts:
        out.print(escape(line), highlight=False, soft_wrap=True)
    for one in sorted(chosen.candidates, key=lambda candidate: not candidate.chosen):
        mark = "[green]candidate[/]" if one.chosen else "[dim]left out[/] "
        out.print(f"{mark} {one.name}: {escape(one.reason)}", highlight=False, soft_wrap=True)


def _changed_options(node: Node) -> str:
    """Show the options that differ from the pass's defaults."""
    defaults = node.step.definition.options().model_dump(mode="json")
    changed = [f"{key}={value}" for key, value in node.step.options.items() if defaults.get(key) != value]
    return f"[dim]({escape(', '.join(changed))})[/]" if changed else ""


def run_optimize(request: Request, out: Path | None, make: Callable[[Request, Display], Report] = optimize) -> Report:
    """Run with progress bars, write the reports and print the table."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    folder = report_folder(request, out)
    check_writable(folder, "the report (--out)")
    with Progress(*columns, console=console, transient=True) as bars:
        report = make(request, _display(bars))
    print_table(report)  # first: a full disk must not take the result along
    problems = [report.not_stored] if report.not_stored else []
    try:
        Console().print(f"report: {write_report(report, folder)}", highlight=False, soft_wrap=True)
    except HoneError as error:
        problems.append(str(error))
    if problems:
        raise HoneError("; ".join(problems))
    return report


def run_search(request: Request, out: Path | None, minutes: float) -> Report:
    """Search with progress bars; then as `run_optimize`, with the trials in a file beside the report."""
    from hone.converters.run.search import Trial, search, write_trials

    trials: list[Trial] = []

    def make(request: Request, display: Display) -> Report:
        report, found = search(request, minutes, display)
        trials.extend(found)
        return report

    report = run_optimize(request, out, make)
    file = write_trials(trials, report_folder(request, out))
    problems = sum(bool(trial.problem) for trial in trials)
    note = f"search: {len(trials)} chains tried{f', {problems} could not be built' if problems else ''}"
    Console().print(f"{note}; all of them: {file}", highlight=False, soft_wrap=True)
    return report


def _display(bars: Progress) -> Display:
    passes = bars.add_task("starting", total=None)
    proof = bars.add_task("proof", total=None, visible=False)
    counts = {"cached": 0, "run": 0}

    def on_plan(plan: Plan) -> None:
        bars.update(passes, total=len(plan.nodes), completed=0, description="passes")

    def on_done(title: str, cached: bool) -> None:
        counts["cached" if cached else "run"] += 1
        bars.advance(passes)

    def on_proof(done: int, total: int, what: str) -> None:
        if done == 0:
            console.print(f"passes: {counts['run']} run, {counts['cached']} from the cache", highlight=False)
        bars.update(proof, completed=done, total=total, description=what, visible=True)

    return Display(
        plan=on_plan,
        passes=PassProgress(
            on_start=lambda title: bars.update(passes, description=title),
            on_message=lambda text: bars.update(passes, description=text),
            on_done=on_done,
        ),
        proof=on_proof,
        message=lambda text: bars.update(passes, description=text),
        note=lambda text: console.print(f"note: {text}", highlight=False, soft_wrap=True, markup=False),
    )


def print_table(report: Report) -> None:
    """Print one row a variant, the winner marked, and why each loser lost."""
    out = Console()
    if out.width < TABLE_WIDTH:
        out = Console(width=TABLE_WIDTH)
    threads = report.budget.at.threads
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    table.add_column("variant", no_wrap=True)
    for column in (
        report.metric.rpartition(":")[2],
        "drop",
        "at most",
        "p50 ms",
        "its 95 %",
        "p99 ms",
        "rows/s",
        "speed-up",
        "MB",
        "MiB peak",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for variant in sorted(report.variants, key=_order):
        if variant.status == "built":
            table.add_row(*_cells(variant, report))
    out.print(table)
    at = f"batch {report.budget.at.batch}, {threads} thread{'' if threads == 1 else 's'}"
    chosen = f", apart from {report.selection_rows} that the search chose by" if report.selection_rows else ""
    rows = f"{report.evaluation_rows} evaluation rows{chosen}"
    sure = f"; 'at most' bounds the drop at {report.budget.confidence:.4g} confidence, all variants together"
    note = f"median latency at {at}; {rows}{sure}; {report.compared_with}"
    out.print(f"[dim]{escape(note)}[/]", soft_wrap=True, highlight=False)
    for warning in report.warnings:
        out.print(f"[yellow]{escape(warning)}[/]", soft_wrap=True, highlight=False)
    out.print()
    for variant in sorted(report.variants, key=_order):
        _print_reason(out, variant, report)
    for one in report.left_out:
        out.print(f"[dim]left out[/] {one.name}: {escape(one.reason)}", highlight=False, soft_wrap=True)
    unfit = sum(not one.chosen and not one.tried for one in report.candidates)
    if unfit:
        out.print(f"{unfit} presets don't fit model, host or budget: the report says why", highlight=False)


def _order(variant: VariantReport) -> tuple[int, int]:
    return (0 if variant.baseline else 1, variant.rank if variant.rank is not None else 1_000)


def _cells(variant: VariantReport, report: Report) -> list[str]:
    latency = report.judged(variant)
    lost = variant.outcome == "missed" and not variant.baseline
    style = "bold green" if variant.name == report.winner else "dim" if lost else "default"
    name = f"{'★ ' if variant.name == report.winner else '  '}{variant.name}"
    texts = [
        name,
        f"{variant.quality:.4f}",
        f"{variant.quality_drop:+.4f}",
        "-" if variant.loss_upper is None else f"{variant.loss_upper:+.4f}",
        f"{latency.p50:.3f}",
        _interval(latency),
        f"{latency.p99:.3f}",
        f"{latency.rows_per_s:,.0f}",
        f"{variant.speedup:.2f}x" if variant.speedup else "-",
        f"{variant.size_mb:.2f}",
        f"{variant.peak_rss_mb:.0f}",
    ]
    return [f"[{style}]{escape(text)}[/]" for text in texts]


def _interval(latency: Percentiles) -> str:
    """The bounds of the median at 95 % confidence."""
    if latency.p50_low is None or latency.p50_high is None:
        return "-"
    return f"{latency.p50_low:.3f}–{latency.p50_high:.3f}"


def _print_reason(out: Console, variant: VariantReport, report: Report) -> None:
    if variant.baseline:
        return
    met = "[green]tie[/]    " if variant.tied else "[green]met[/]    "
    verdicts = {"met": met, "undecided": "[yellow]undecided[/]", "missed": "[red]missed[/] "}
    mark = {"built": verdicts[variant.outcome], "skipped": "[yellow]skipped[/]", "unproven": verdicts["undecided"]}
    label = "[green]winner[/] " if variant.name == report.winner else mark.get(variant.status, "[red]failed[/] ")
    reason = escape(f"{variant.reason}; {variant.remedy}" if variant.remedy else variant.reason)
    out.print(f"{label} {variant.name}: {reason}", highlight=False, soft_wrap=True)
