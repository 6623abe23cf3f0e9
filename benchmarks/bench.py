"""Run a load test: Locust in a process of its own, records in, report out."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from benchmarks.payload import bodies
from benchmarks.records import LoadReport, measure
from benchmarks.report import write_load_report
from benchmarks.scenarios import Scenario
from hone.artifact import Artifact
from hone.errors import HoneError, UnavailableError
from hone.hardware import host

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
PROBE = Scenario(kind="closed", users=16, duration_s=3.0, warm_up_s=1.0)
Record = tuple[float, float, float, str]


def bench(
    url: str, artifact: Artifact, *, model: str, out: Path, scenario: Scenario, progress: Callable[[str], None]
) -> LoadReport:
    """Load a service and write `load.json`, `load.html` and `load.svg` to `out`.

    An open-loop scenario without a rate gets half of what a short closed-loop probe reaches: a load at which a
    healthy service's latency is its own and not its queue's.

    Args:
        url: of a running service.
        artifact: what it serves, for the request bodies.
        model: its tag, for the report.
        out: a folder.
        scenario: the load.
        progress: told what happens, in words.

    Raises:
        UnavailableError: Locust is not installed.
        HoneError: the service can't be reached.
    """
    require_service(url)
    payload = bodies(artifact, scenario.rows, scenario.seed)
    source, capacity = ("closed loop" if scenario.kind == "closed" else "given"), None
    if scenario.kind == "open" and scenario.rate is None:
        progress(f"probing the capacity of {url} with {PROBE.users} callers")
        probe = PROBE.model_copy(update={"rows": scenario.rows})
        capacity = measure(run_load(url, probe, payload), probe)["rate"]
        if not capacity:
            raise HoneError(
                f"{url}: the probe got no good answer; try one request by hand, or look at the service's log"
            )
        scenario = scenario.model_copy(update={"rate": round(capacity / 2, 1)})
        source = "half of the probed capacity"
    progress(f"{scenario.duration_s:g} s of {_words(scenario)}")
    records = run_load(url, scenario, payload)
    report = LoadReport(
        model=model,
        url=url,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        scenario=scenario,
        rate_source=source,
        probed_capacity=capacity,
        host=host(),
        **measure(records, scenario),
    )
    write_load_report(report, out)
    return report


def _words(scenario: Scenario) -> str:
    if scenario.kind == "closed":
        return f"closed loop, {scenario.users} callers, {scenario.rows} row(s) a request"
    return f"open loop, {scenario.rate:g} requests/s with Poisson arrivals, {scenario.rows} row(s) a request"


def run_load(url: str, scenario: Scenario, payload: list[bytes]) -> list[Record]:
    """Run one scenario with Locust and return a record of every request.

    Raises:
        HoneError: Locust ended with an error.
    """
    with tempfile.TemporaryDirectory(prefix="hone-load-") as folder:
        load, output = Path(folder) / "load.json", Path(folder) / "records.jsonl"
        content = {
            "scenario": scenario.model_dump(),
            "bodies": [body.decode() for body in payload],
            "rows": scenario.rows,
            "output": str(output),
        }
        load.write_text(json.dumps(content))
        command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--host", url]
        command += ["--users", str(1 if scenario.kind == "open" else scenario.users), "--spawn-rate", "1000"]
        command += ["--only-summary", "--loglevel", "WARNING"]
        search_path = os.pathsep.join([str(LOCUSTFILE.parent.parent), os.environ.get("PYTHONPATH", "")])
        answer = subprocess.run(
            command,
            env={**os.environ, "HONE_LOAD": str(load), "PYTHONPATH": search_path},
            capture_output=True,
            text=True,
            timeout=scenario.warm_up_s + scenario.duration_s + 120,
            check=False,
        )
        if not output.exists():
            lines = answer.stderr.strip().splitlines()
            raise HoneError(f"Locust ended with status {answer.returncode}: {lines[-1] if lines else 'no message'}")
        return [tuple(json.loads(line)) for line in output.read_text().splitlines()]


def require_service(url: str) -> None:
    """Raise unless Locust is there and a service answers.

    Raises:
        UnavailableError: Locust is not installed.
        HoneError: nothing answers, or it is not ready.
    """
    if find_spec("locust") is None:
        raise UnavailableError("locust is not installed", "install the [bench] extra")
    if not url.startswith(("http://", "https://")):
        raise HoneError(f"--url: '{url}' is no address; give one such as http://127.0.0.1:3000")
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=10):  # the scheme is checked above  # nosec B310
            return
    except urllib.error.HTTPError as error:
        raise HoneError(f"{url}/readyz answers {error.code}: the service is not ready") from None
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise HoneError(
            f"{url}: no service answers: {reason}; start one with 'hone serve', or leave --url out"
        ) from None
