"""The command: `hone status`, and `python -m hone.services.status` in an image that serves."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from hone.errors import HoneError

FAILED = 3


@click.command()
@click.argument("url", default="http://127.0.0.1:3000")
@click.option("--each", is_flag=True, help="Ask every address that the name has: pods behind a headless service.")
@click.option("--api-key", envvar="HONE_API_KEY", default="", help="With the scope read. [default: $HONE_API_KEY]")
@click.option("--ca", type=click.Path(path_type=Path), help="Certificates that the service's is checked with.")
@click.option("--errors", type=click.FloatRange(0, 100), default=1.0, show_default=True, help="Percent allowed.")
@click.option("--p99", "p99_ms", type=click.FloatRange(0, min_open=True), help="Milliseconds allowed.")
@click.option("--capacity", type=click.Path(path_type=Path), help="capacity.json: its limit and rate count.")
@click.option("--over", "over_s", type=click.FloatRange(0.1), default=5.0, show_default=True, help="Seconds of load.")
@click.option("--image-record", type=click.Path(path_type=Path), help="image.json: what should answer.")
@click.option("--certificate-days", type=click.FloatRange(0), default=14.0, show_default=True, help="Left, at least.")
@click.option("--backups", type=click.Path(path_type=Path), help="Folder that hone backup writes to.")
@click.option("--backup-days", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True)
@click.option("--disk", "disks", multiple=True, type=click.Path(path_type=Path), help="Must have room; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON in place of lines.")
def status(url: str, each: bool, api_key: str, ca: Path | None, as_json: bool, **options: Any) -> None:
    """Check the running service at URL; exits with status 3 when something is not in order.

    Errors and latencies are of all requests since its workers started, the load is that of the next seconds. What
    isn't known, such as a capacity that isn't given, isn't checked.
    """
    from .asking import Access, check_address, each_address
    from .checks import check_service
    from .host import backup_age, disk_room
    from .printing import show, to_json

    url = check_address(url)
    wanted = _wanted(**{name: options.pop(name) for name in NAMES})
    places = each_address(url) if each else [url]
    findings = [found for place in places for found in check_service(place, Access(api_key, ca), wanted)]
    if options["backups"] is not None:
        findings.append(backup_age(options["backups"], options["backup_days"]))
    findings += [disk_room(place) for place in options["disks"]]
    bad = sum(finding.is_bad for finding in findings)
    if as_json:
        click.echo(to_json(url, findings))
    else:
        show(findings)
        click.echo(f"{bad} not in order" if bad else "all that was checked is in order")
    if bad:
        sys.exit(FAILED)


NAMES = ("errors", "p99_ms", "capacity", "over_s", "image_record", "certificate_days")


def _wanted(
    errors: float, p99_ms: float | None, capacity: Path | None, image_record: Path | None, **given: float
) -> Any:
    """Return what the service is held against; raises HoneError when a file holds something else."""
    from hone.capacity import read_capacity

    from .checks import Wanted

    measured = None if capacity is None else read_capacity(capacity)
    limits: dict[str, float] = {} if measured is None else {measured.slo.percentile: measured.slo.limit_ms}
    if p99_ms is not None:
        limits["p99_ms"] = p99_ms
    return Wanted(
        errors=errors / 100,
        limits_ms=limits,
        capacity_rps=None if measured is None else measured.safe_rate,
        contents={} if image_record is None else _contents(image_record),
        **given,
    )


def _contents(file: Path) -> dict[str, str]:
    """Return the digest of what an image's record says that it serves, by tag."""
    import json

    try:
        record = json.loads(file.read_text())
        return {record["serves"]: next(m["digest"] for m in record["models"] if m["tag"] == record["serves"])}
    except OSError as error:
        raise HoneError(f"{file}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, StopIteration):
        raise HoneError(f"{file}: no record of an image; hone containerize writes image.json") from None


def main() -> None:
    """Run the command by itself."""
    try:
        status()
    except HoneError as error:
        sys.exit(f"error: {error}")
