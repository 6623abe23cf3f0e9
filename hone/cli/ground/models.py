"""`hone models`: list, show, remove and compare stored artifacts; what travels is in `hone.cli.archives`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from hone.cli import archives
from hone.cli.archives import policy_of
from hone.cli.auditing import audited
from hone.cli.groups import HoneGroup
from hone.cli.printing import columns
from hone.cli.pruning import prune_command
from hone.errors import StoreError, did_you_mean

if TYPE_CHECKING:
    from hone.artifact import Manifest
    from hone.similar.ranking import Similar
    from hone.store import Entry
    from hone.store.keys import Keys

STANDS = {
    "met": "meets the budget",
    "missed": "misses the budget",
    "undecided": "not proven to meet the budget",
}


@click.group(cls=HoneGroup)
def models() -> None:
    """Look after the model store."""


for command in (*archives.COMMANDS, prune_command):
    models.add_command(command)


@models.command("list")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_command(name: str | None, as_json: bool) -> None:
    """List stored artifacts, newest run first, best first within a run."""
    from hone import store

    found = store.entries(name)
    if as_json:
        for entry in found:
            click.echo(json.dumps(_summary(entry)))
        return
    if not found:
        click.echo(f"no models in {store.models_dir()}; hone optimize puts them there")
        return
    header = ("TAG", "RANK", "RUNTIME", "PRECISION", "SIZE", "QUALITY", "P50 ms", "BUDGET", "SIGNATURE")
    keys = policy_of().keys
    click.echo(columns([header, *(_row(entry, keys) for entry in found)]))


@models.command("show")
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="The whole artifact.json.")
def show_command(model: str, as_json: bool) -> None:
    """Show one artifact: signature, lineage, measurements, files."""
    from hone import runtimes

    entry, manifest = _manifest(model)
    if as_json:
        click.echo(manifest.model_dump_json(indent=2))
        return
    click.echo(f"{entry.tag}\n  path      {entry.path}\n  digest    {manifest.digest}")
    _show_trust(entry)
    click.echo(f"  runtime   {manifest.runtime}, {manifest.precision}, entry {manifest.entry}")
    if remark := runtimes.remark(manifest):
        click.echo(f"  remark    {remark}")
    for kind, specs in (("input", manifest.signature.inputs), ("output", manifest.signature.outputs)):
        for spec in specs:
            click.echo(f"  {kind:<9} {spec.name}: {spec.describe()}")
    for where, one in manifest.steps.named() if manifest.steps else ():
        click.echo(f"  {'takes' if where.startswith('pre') else 'answers':<9} {one.described()}")
    for record in manifest.lineage:
        options = ", ".join(f"{key}={value}" for key, value in record.options.items())
        click.echo(f"  pass      {record.name}({options}), {record.seconds:.2f} s")
    if manifest.selection:
        verdict = STANDS[manifest.selection.outcome]
        click.echo(f"  run       {manifest.selection.run}, rank {manifest.selection.rank + 1}, {verdict}")
        click.echo(f"  reason    {manifest.selection.reason}")
    if manifest.measurements:
        quality = manifest.measurements.quality
        click.echo(f"  quality   {quality.metric} {quality.value:.4f}, source {quality.source:.4f}")
        for latency in manifest.measurements.latency:
            click.echo(
                f"  latency   batch {latency.batch}, threads {latency.threads}: p50 {latency.p50:.3f} ms, "
                f"p99 {latency.p99:.3f} ms, {latency.rows_per_s:,.0f} rows/s"
            )
        click.echo(
            f"  memory    {manifest.measurements.peak_rss_mb:.0f} MiB peak; load {manifest.measurements.load_ms:.0f} ms"
        )
    for data in manifest.data:
        rows = "rows unknown" if data.rows is None else f"{data.rows:,} rows"
        click.echo(f"  data      {data.role} from {data.source}, {rows}, sha256 {data.sha256[:16]}")
    if manifest.golden:
        golden = manifest.golden
        click.echo(f"  golden    {golden.rows} rows, {golden.source}, tolerances from {golden.repeats} runs")
    if manifest.drift:
        click.echo(f"  drift     {manifest.drift}: what traffic is compared with")
    for name, file in manifest.files.items():
        click.echo(f"  file      {name}, {file.size:,} bytes, sha256 {file.sha256[:16]}")


def _show_trust(entry: Entry) -> None:
    from hone import runtimes, store
    from hone.store.origins import read_origin
    from hone.store.signing import standing

    worth = standing(entry.path, entry.name, entry.version, policy_of().keys)
    origin = read_origin(store.models_dir(), entry.name, entry.version, entry.path)
    by = f"{origin.by}{f', signed by {origin.signer}' if origin.signer else ''}" if origin else "unknown"
    click.echo(f"  signature {worth.describe()}\n  origin    {by}")
    code = runtimes.code_in(entry.opened(verify=False))
    if code:
        trusted = "trusted" if origin and origin.trusted else "not trusted"
        click.echo(f"  code      it {code}; {trusted} on this host")


def _of_run(name: str, run: str) -> list[Entry]:
    """Return what a run stored under a name; a run is the date, time and mark at the end of its tags."""
    from hone import store

    stored = store.entries(name) or [store.resolve(name)]
    found = [entry for entry in stored if entry.run == run]
    if not found:
        raise StoreError(f"no run '{run}' of '{name}'{did_you_mean(run, {entry.run for entry in stored if entry.run})}")
    return found


@models.command("rm")
@click.argument("references", nargs=-1, required=True, metavar="MODEL...")
@click.option("--all-versions", is_flag=True, help="MODEL is a bare name: remove every version of it.")
@click.option("--run", metavar="RUN", help="MODEL is a bare name: remove what this run of hone optimize stored.")
@click.option("-y", "--yes", is_flag=True, help="Don't ask.")
@audited("models rm", "references")
def rm_command(references: tuple[str, ...], all_versions: bool, run: str | None, yes: bool) -> None:
    """Remove stored artifacts; not what the registry's champion or previous mean."""
    from hone import store
    from hone.store.registry import check_removal

    found: dict[str, Entry] = {}
    for reference in references:
        if run is not None:
            matches = _of_run(reference, run)
        elif all_versions:
            matches = store.entries(reference) or [store.resolve(reference)]
        elif ":" in reference:
            matches = [store.resolve(reference)]
        else:
            raise StoreError(f"'{reference}' names no version; give NAME:VERSION, --run RUN or --all-versions")
        found.update({entry.tag: entry for entry in matches})
    check_removal(list(found.values()))
    if not yes:
        click.confirm(f"remove {', '.join(found)}?", abort=True)
    for tag, entry in found.items():
        store.remove(entry)
        click.echo(f"removed {tag}")


@models.command("diff")
@click.argument("first")
@click.argument("second")
@click.option("--layers", is_flag=True, help="Compare the weights, too: cosine, bits and sparsity of each layer.")
def diff_command(first: str, second: str, layers: bool) -> None:
    """Compare two artifacts: signature, passes, files, measurements, and with --layers their weights."""
    from hone.describe.diff import differences

    (one, left), (two, right) = _manifest(first), _manifest(second)
    lines = differences(left, right)
    click.echo(f"--- {one.tag}\n+++ {two.tag}")
    click.echo("\n".join(lines) if lines else "no differences but their tags")
    if layers:
        click.echo("\n" + _layer_table(one, two))


@models.command("similar")
@click.argument("model")
@click.option("--name", metavar="NAME", help="Among versions of this model only.")
@click.option("--rows", type=click.IntRange(1), default=200, show_default=True, help="Rows that all are asked.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def similar_command(model: str, name: str | None, rows: int, as_json: bool) -> None:
    """Rank the stored models that take and give what MODEL does by how far they answer as it does.

    They are run here, on rows of its evaluation that are kept, or its golden rows; weights are compared beside.
    """
    from dataclasses import asdict

    from hone.similar.ranking import similar

    ranked = similar(model, name, rows)
    if as_json:
        for one in ranked.found:
            click.echo(json.dumps(asdict(one)))
        return
    click.echo(f"{ranked.tag}, {ranked.rows} rows: {ranked.rows_from}")
    if not ranked.found:
        among = f"of {name} " if name else ""
        click.echo(f"no other stored model {among}takes and gives the same")
        return
    header = ("TAG", "AGREES", "OFF", "WEIGHTS", "MATCHED", "SOURCE", "")
    click.echo("\n" + columns([header, *(_similar_row(one) for one in ranked.found)]))


def _similar_row(one: Similar) -> tuple[str, ...]:
    off = "-" if one.answers is None or one.answers.off is None else f"{one.answers.off:.3g}"
    answers = (f"{one.answers.share:.2%}" if one.answers else "-", off)
    weights = ("-", "-") if one.weights is None else (f"{one.weights:.4f}", f"{one.matched:.0%}")
    return (one.tag, *answers, *weights, "same" if one.source else "other", one.note)


def _layer_table(one: Entry, two: Entry) -> str:
    """Return a line for each layer, the most changed first."""
    from hone.describe.layers import compare_layers

    found = compare_layers(one.opened(), two.opened())
    found.sort(key=lambda layer: (layer.cosine is not None, layer.cosine))
    rows = [("layer", "cosine", "bits", "zeros")]
    for layer in found:
        sides = (layer.first, layer.second)
        bits = " -> ".join(str(side.bits) if side else "none" for side in sides)
        zeros = " -> ".join(f"{side.sparsity:.1%}" if side else "none" for side in sides)
        rows.append((layer.name, f"{layer.cosine:.6f}" if layer.cosine is not None else "-", bits, zeros))
    return columns(rows)


def _manifest(model: str) -> tuple[Entry, Manifest]:
    from hone import store

    entry = store.resolve(model)
    return entry, entry.opened(verify=False).manifest


def _row(entry: Entry, keys: Keys) -> tuple[str, ...]:
    from hone.store.signing import standing

    if entry.artifact is None:
        return (entry.tag, "-", "-", "-", "-", "-", "-", "-", f"unreadable: {entry.error}")
    manifest = entry.artifact.manifest
    measured = manifest.measurements
    p50 = _judged_p50(manifest)
    return (
        entry.tag,
        str(entry.rank + 1) if manifest.selection else "-",
        manifest.runtime,
        manifest.precision,
        f"{manifest.size_bytes / 1e6:.2f} MB",
        f"{measured.quality.value:.4f}" if measured else "-",
        f"{p50:.3f}" if p50 is not None else "-",
        manifest.selection.outcome if manifest.selection else "-",
        standing(entry.path, entry.name, entry.version, keys).describe(),
    )


def _judged_p50(manifest: Manifest) -> float | None:
    """Return the latency that the run ranked it by; for one stored without its conditions, the least of one row."""
    measured, selection = manifest.measurements, manifest.selection
    if measured is None:
        return None
    if selection and selection.batch and selection.threads:
        latency = measured.at(selection.batch, selection.threads)
        return latency.p50 if latency else None
    return min((latency.p50 for latency in measured.latency if latency.batch == 1), default=None)


def _summary(entry: Entry) -> dict[str, object]:
    summary: dict[str, object] = {"tag": entry.tag, "path": str(entry.path), "error": entry.error or None}
    if entry.artifact:
        summary["manifest"] = entry.artifact.manifest.model_dump(mode="json")
    return summary
