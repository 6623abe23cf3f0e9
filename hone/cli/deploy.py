"""The commands that bring a model to a cluster: image, manifests, checks."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from hone.cli.auditing import audited

KIND = click.option(
    "--kind", type=click.Choice(["cpu", "openvino", "cuda", "tensorrt"]), default="cpu", show_default=True
)


@click.command()
@click.argument("model")
@click.option("--and", "more", multiple=True, metavar="MODEL", help="One more model or version; may be repeated.")
@KIND
@click.option("--tag", default="", help="The image's name. [default: localhost/hone/NAME:VERSION-KIND]")
@click.option("--engine", type=click.Choice(["docker", "podman", "buildah"]), help="[default: the first installed]")
@click.option("--base", default="", help="Another base image; it needs Python 3.11 or 3.12 with venv.")
@click.option("--wheels", type=click.Path(path_type=Path), help="Install from this folder of wheels, offline.")
@click.option("--index-url", default="", help="A package mirror. [default: $PIP_INDEX_URL]")
@click.option(
    "--ca", type=click.Path(path_type=Path), help="Certificates to check the mirror's with. [default: $PIP_CERT]"
)
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="One more label; may be repeated.")
@click.option("--context", type=click.Path(path_type=Path), help="Only write the build context into this new folder.")
@click.option("--push", is_flag=True, help="Push it to the registry that --tag names.")
@click.option("--record", type=click.Path(path_type=Path), help="What the image holds. [default: out/NAME/image.json]")
@audited("containerize", "model", unless=("context",))
def containerize(
    model: str,
    more: tuple[str, ...],
    kind: str,
    tag: str,
    engine: str | None,
    base: str,
    wheels: Path | None,
    index_url: str,
    ca: Path | None,
    labels: tuple[str, ...],
    context: Path | None,
    push: bool,
    record: Path | None,
) -> None:
    """Build a container image that serves a stored MODEL: small, not root, its root file system read-only.

    --and packs more: another model is served beside the first, another version of the same lies ready to be loaded.
    """
    from hone.files import atomic_write
    from hone.k8s.tools.containerize import containerize as build
    from hone.k8s.tools.packing import Request

    pairs = [label.partition("=") for label in labels]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise click.UsageError(f"--label: '{name}' is not NAME=VALUE")
    extra = {name: value for name, _, value in pairs}
    request = Request(model, kind, tag, base, wheels, index_url, ca, engine or "", extra, more, push)
    image = build(request, lambda text: click.echo(text, err=True), context)
    file = record or Path("out") / model.partition(":")[0] / "image.json"
    atomic_write(file, image.model_dump_json(indent=2) + "\n")
    if image.id:
        click.echo(image.summary())
    click.echo(f"record: {file}")


@click.command()
@click.argument("model")
@click.option("--capacity", type=click.Path(path_type=Path), required=True, help="Of hone bench capacity.")
@click.option("--image", default="", help="As the cluster pulls it, with tag or digest. [default: the record's]")
@click.option("--image-record", type=click.Path(path_type=Path), help="image.json of hone containerize.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new folder.")
@click.option("--peak", type=click.FloatRange(min=0, min_open=True), help="Requests per second expected at most.")
@click.option("--component", "components", multiple=True, help="Of k8s/components; may be repeated.")
def render(
    model: str,
    capacity: Path,
    image: str,
    image_record: Path | None,
    out: Path,
    peak: float | None,
    components: tuple[str, ...],
) -> None:
    """Write manifests for MODEL whose numbers come from its measured capacity; OUT/numbers.md says which from what.

    With --image-record a capacity of anything else than what the image serves is refused.
    """
    from hone import store
    from hone.k8s.tools.image_record import image_to_deploy
    from hone.k8s.tools.render import render as write

    entry = store.resolve(model)
    digest = entry.opened(verify=False).digest
    image, remarks = image_to_deploy(image, image_record, entry.tag, digest, capacity)
    numbers = write(model, entry.tag, image, capacity, out, peak=peak, components=components, remarks=remarks)
    for number in numbers.sources:
        click.echo(f"{number.field:24} {number.value:>10}  {number.origin}")
    for remark in remarks:
        click.echo(remark)
    click.echo(f"wrote {out}; next: hone deploy preflight {out} && kubectl apply -k {out}")


@click.command()
@click.option("--out", type=click.Path(path_type=Path), help="Write to a file instead of standard output.")
def dashboard(out: Path | None) -> None:
    """Print the Grafana dashboard of the service's metrics."""
    from hone.files import atomic_write
    from hone.k8s.tools.dashboard import to_json

    if out:
        atomic_write(out, to_json())
    else:
        click.echo(to_json(), nl=False)


@click.command()
@click.argument("overlay", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--context", "cluster", help="Of kubectl's configuration. [default: the current one]")
@click.option("--server", help="Address of the API server, for one without a kubectl configuration.")
def preflight(overlay: Path, cluster: str | None, server: str | None) -> None:
    """List what a cluster lacks for the manifests of OVERLAY; exits with status 1 when something is missing."""
    from hone.k8s.tools.cluster import Cluster
    from hone.k8s.tools.preflight import preflight as check

    arguments = (*(("--context", cluster) if cluster else ()), *(("--server", server) if server else ()))
    findings = check(overlay, Cluster(arguments))
    colors = {"ok": "green", "missing": "red", "unknown": "yellow"}
    for finding in findings:
        click.echo(f"{click.style(f'{finding.state:8}', fg=colors[finding.state])} {finding.name}: {finding.detail}")
        if finding.state != "ok":
            click.echo(f"         {finding.remedy}")
    lacking = sum(finding.state == "missing" for finding in findings)
    click.echo(f"{lacking} missing" if lacking else "nothing is missing")
    sys.exit(1 if lacking else 0)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), help="Write to a file instead of standard output.")
def rules(out: Path | None) -> None:
    """Print the alerting rules as an object of the Prometheus operator."""
    from hone.files import atomic_write
    from hone.k8s.tools.dashboard import prometheus_rule

    if out:
        atomic_write(out, prometheus_rule())
    else:
        click.echo(prometheus_rule(), nl=False)


@click.command()
@KIND
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A folder.")
def wheels(kind: str, out: Path) -> None:
    """Download the packages of an image, for hone containerize --wheels on a host without a network."""
    from hone.k8s.tools.build_context import fetch_wheels

    click.echo(f"{fetch_wheels(kind, out)} wheels in {out}")


K8S_COMMANDS = (render, dashboard, rules, wheels)
DEPLOY_COMMANDS = (preflight,)
