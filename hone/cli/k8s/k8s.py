"""`hone k8s`: manifests, dashboard, alerting rules, and what an image is made of."""

from __future__ import annotations

from pathlib import Path

import click

from hone.cli.groups import HoneGroup
from hone.cli.k8s.containerize import KIND
from hone.cli.prices import price_options, prices
from hone.cli.printing import print_or_write
from hone.cli.simulation import simulate


@click.group(cls=HoneGroup)
def k8s() -> None:
    """Manifests with measured numbers, and the dashboard."""


k8s.add_command(simulate)


@k8s.command()
@click.argument("model")
@click.option("--capacity", type=click.Path(path_type=Path), required=True, help="Of hone bench capacity.")
@click.option("--image", default="", help="As the cluster pulls it, with tag or digest. [default: the record's]")
@click.option("--image-record", type=click.Path(path_type=Path), help="image.json of hone containerize.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new folder.")
@click.option("--peak", type=click.FloatRange(min=0, min_open=True), help="Requests per second expected at most.")
@click.option("--component", "components", multiple=True, help="Of k8s/components; may be repeated.")
@click.option("--autoscaler", type=click.Path(path_type=Path), help="Its YAML, as hone k8s simulate --write gives it.")
@click.option("--forecast", type=click.Path(path_type=Path), help="Of hone capacity: pods are there before its peaks.")
@click.option("--kubernetes", metavar="RELEASE", help="The cluster's; from 1.35 on pods are added at 5 % above target.")
@click.option("--rollout", type=click.Choice(["argo", "flagger", "gateway"]), help="How new versions get requests.")
@click.option("--canary-image", default="", help="Of the second Deployment, with --rollout gateway.")
@click.option("--kserve", is_flag=True, help="An InferenceService and its ServingRuntime in place of the Deployment.")
@click.option(
    "--kserve-mode",
    type=click.Choice(["Standard", "RawDeployment"]),
    default="Standard",
    show_default=True,
    help="What KServe calls it: the latter until 0.15.",
)
def render(
    model: str,
    capacity: Path,
    image: str,
    image_record: Path | None,
    out: Path,
    peak: float | None,
    components: tuple[str, ...],
    autoscaler: Path | None,
    forecast: Path | None,
    kubernetes: str | None,
    rollout: str | None,
    canary_image: str,
    kserve: bool,
    kserve_mode: str,
) -> None:
    """Write manifests for MODEL whose numbers come from its measured capacity; OUT/numbers.md says which from what.

    With --image-record a capacity of anything else than what the image serves is refused.
    """
    from hone import store
    from hone.capacity import read_capacity
    from hone.k8s.autoscaler.hpa.flags import parse_release
    from hone.k8s.tools.image_record import image_to_deploy
    from hone.k8s.tools.render import render as write
    from hone.k8s.tools.rollouts.kinds import Rollout

    entry, found = store.resolve(model), read_capacity(capacity)
    digest = entry.opened(verify=False).digest
    measured = found.digest or digest
    image, remarks = image_to_deploy(image, image_record, entry.tag, measured, capacity, found.image)
    numbers = write(
        model, entry.tag, image, capacity, out, peak=peak, components=components, remarks=remarks, digest=digest,
        autoscaler=autoscaler, release=parse_release(kubernetes) if kubernetes else None, forecast=forecast,
        rollout=Rollout(rollout, canary_image) if rollout else None, kserve=kserve_mode if kserve else "",
    )  # fmt: skip
    for number in numbers.sources:
        click.echo(f"{number.field:24} {number.value:>10}  {number.origin}")
    for remark in remarks:
        click.echo(remark)
    click.echo(f"wrote {out}; next: hone deploy preflight {out} && kubectl apply -k {out}")


@k8s.command()
@click.option("--out", type=click.Path(path_type=Path), help="Write to a file instead of standard output.")
def dashboard(out: Path | None) -> None:
    """Print the Grafana dashboard of the service's metrics."""
    from hone.k8s.tools.dashboard import to_json

    print_or_write(to_json(), out)


@k8s.command()
@price_options
@click.option("--budget", metavar="AMOUNT/UNIT", help="Such as 500/month; an alert fires at 80 % of it.")
@click.option("--out", type=click.Path(path_type=Path), help="Write to a file instead of standard output.")
def rules(cpu_hour: float, gb_hour: float, gpu_hour: float, budget: str | None, out: Path | None) -> None:
    """Print the alerting rules as an object of the Prometheus operator; with prices, what running pods cost, too."""
    from hone.k8s.prices import price_rules
    from hone.k8s.tools.dashboard import prometheus_rule

    price, budget_hour = prices(cpu_hour, gb_hour, gpu_hour, budget)
    print_or_write(prometheus_rule(*([price_rules(price, budget_hour)] if price.known else [])), out)


@k8s.command()
@KIND
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A folder.")
def wheels(kind: str, out: Path) -> None:
    """Download the packages of an image, for hone containerize --wheels on a host without a network."""
    from hone.k8s.tools.build_context import fetch_wheels

    click.echo(f"{fetch_wheels(kind, out)} wheels in {out}")
