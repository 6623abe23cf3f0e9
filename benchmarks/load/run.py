"""Run a load test: Locust in a process of its own, records in, report out."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from hone import store
from hone.artifact import Artifact
from hone.errors import HoneError, StoreError, UnavailableError
from hone.hardware import host
from hone.processes import why_failed

from ..records import LoadReport, RateSource, measure
from ..reports.load import write_load_report
from ..scenarios import Scenario
from .limits import Baseline, Limits, compare, judge
from .payload import requests, rows_for
from .target import Access, Target, ask
from .wire import Call, Json

LOCUSTFILE = Path(__file__).parent.parent / "locustfile.py"
PROBE = Scenario(kind="closed", users=16, duration_s=3.0, warm_up_s=1.0)
Record = tuple[float, float, float, str]


def find_target(url: str, reference: str, access: Access) -> Target:
    """Return what a service says of the model that a load test names.

    Raises:
        UnavailableError: Locust is not installed.
        HoneError: nothing answers, the key is refused, or the service doesn't serve that.
    """
    if find_spec("locust") is None:
        raise UnavailableError("locust is not installed", "pip install 'hone[bench]'")
    return ask(url, access, reference)


def calls_for(target: Target, rows: int, seed: int = 0) -> list[Call]:
    """Return different requests of so many rows each."""
    drawn = requests(rows_for(target, artifact=_stored(target), seed=seed), target.signature, rows, seed)
    return [Json().call(target.path, target.signature, inputs) for inputs in drawn]


def _stored(target: Target) -> Artifact | None:
    """Return the artifact that a service serves where this host's store has it: it keeps some real rows."""
    try:
        artifact = store.resolve(target.tag).opened()
    except (StoreError, HoneError):
        return None
    return artifact if target.digest in (None, artifact.manifest.digest) else None


def bench(
    target: Target,
    *,
    out: Path,
    scenario: Scenario,
    progress: Callable[[str], None],
    limits: Limits | None = None,
    baseline: Baseline | None = None,
) -> LoadReport:
    """Load a service and write `load.json`, `load.html` and `load.svg` to `out`.

    An open-loop scenario without a rate gets half of what a short closed-loop probe reaches: a load at which a
    healthy service's latency is its own and not its queue's.

    Args:
        target: the model.
        out: a folder.
        scenario: the load.
        progress: told what happens, in words.
        limits: what the run is judged by.
        baseline: another run that it is compared with.

    Raises:
        HoneError: the service gives no good answer, or the baseline is of another model or load.
    """
    if baseline is not None:
        baseline.require_same(target, scenario)
    calls = calls_for(target, scenario.rows, scenario.seed)
    scenario, source, capacity = _with_rate(scenario, target, calls, progress)
    progress(f"{scenario.duration_s:g} s of {_words(scenario)}")
    measured = measure(run_load(target, scenario, calls), scenario)
    report = LoadReport(
        model=target.tag,
        digest=target.digest,
        url=target.url,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        scenario=scenario,
        rate_source=source,
        probed_capacity=capacity,
        host=host(),
        checks=[*judge(measured, limits or Limits()), *(compare(measured, baseline) if baseline else [])],
        **measured,
    )
    write_load_report(report, out)
    return report


def _with_rate(
    scenario: Scenario, target: Target, calls: list[Call], progress: Callable[[str], None]
) -> tuple[Scenario, RateSource, float | None]:
    """Return a scenario that has its rate, where that is from, and the requests/s that a probe reached, if one ran.

    Raises:
        HoneError: the probe got no good answer.
    """
    if scenario.kind == "closed":
        return scenario, "closed loop", None
    if scenario.rate is not None:
        return scenario, "given", None
    progress(f"probing the capacity of {target.url} with {PROBE.users} callers")
    probe = PROBE.model_copy(update={"rows": scenario.rows})
    found = measure(run_load(target, probe, calls), probe)
    capacity = float(found["rate"])
    if not capacity:
        reasons = ", ".join(found["errors_by_kind"])
        raise HoneError(f"{target.url}: the probe got no good answer: {reasons}; the service's log may say why")
    return scenario.model_copy(update={"rate": round(capacity / 2, 1)}), "half of the probed capacity", capacity


def _words(scenario: Scenario) -> str:
    if scenario.kind == "closed":
        return f"closed loop, {scenario.users} callers, {scenario.rows} row(s) a request"
    return f"open loop, {scenario.rate:g} requests/s with Poisson arrivals, {scenario.rows} row(s) a request"


def run_load(target: Target, scenario: Scenario, calls: list[Call]) -> list[Record]:
    """Run one scenario with Locust and return a record of every request.

    Raises:
        HoneError: Locust ended with an error.
    """
    with tempfile.TemporaryDirectory(prefix="hone-load-") as folder:
        load, output = Path(folder) / "load.json", Path(folder) / "records.jsonl"
        content = {
            "scenario": scenario.model_dump(),
            "path": calls[0].path,
            "headers": {**calls[0].headers, **target.access.headers},
            "bodies": [call.body.decode() for call in calls],
            "rows": scenario.rows if target.signature.batchable else None,
            "tag": target.tag,
            "ca": str(target.access.ca.resolve()) if target.access.ca else None,
            "output": str(output),
        }
        load.write_text(json.dumps(content))
        command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--host", target.url]
        command += ["--users", str(1 if scenario.kind == "open" else scenario.users), "--spawn-rate", "1000"]
        command += ["--only-summary", "--loglevel", "WARNING"]
        answer = subprocess.run(
            command,
            env={**os.environ, "HONE_LOAD": str(load)},
            capture_output=True,
            text=True,
            timeout=scenario.warm_up_s + scenario.duration_s + 120,
            check=False,
        )
        if not output.exists():
            raise HoneError(f"Locust ended with status {answer.returncode}: {why_failed(answer.stderr)}")
        return [tuple(json.loads(line)) for line in output.read_text().splitlines()]
