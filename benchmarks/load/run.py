"""A load test from a model's name to its report."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hone import store
from hone.errors import HoneError, StoreError, UnavailableError
from hone.files import check_writable
from hone.hardware import host

from ..measures import measure, outcomes
from ..records import FIGURES, LATE_SHARE, Answers, LoadReport, RateSource, Sent
from ..reports.load import write_load_report
from ..scenarios import Scenario
from . import workload as workloads
from .answers import check
from .limits import Baseline, Limits
from .payload import rows_for
from .sending.trial import Trial, run_trial
from .target import Access, Target, ask, cache_looks
from .verdicts import judged
from .wire import WIRES
from .workload import Workload

PROBE = Scenario(kind="closed", users=16, duration_s=3.0, warm_up_s=1.0)
TRIES = 3
"""What was probed is halved at most so often until the generator holds it."""


@dataclass(frozen=True)
class Options:
    """How a load test is run, beside its scenario.

    Attributes:
        rows: file that requests are made of; None: what the store or the service has.
        workload: requests and their times, where they were recorded.
        limits: what the run is judged by.
        baseline: another run that it is compared with.
        most_late: share of requests that may be started over a millisecond late.
        wire: protocol of the requests.
    """

    rows: Path | None = None
    workload: Workload | None = None
    limits: Limits = field(default_factory=Limits)
    baseline: Baseline | None = None
    most_late: float = LATE_SHARE
    wire: str = "json"


def find_target(url: str, reference: str, access: Access) -> Target:
    """Return what a service says of the model that a load test names.

    Raises:
        UnavailableError: Locust or SciPy is not installed.
        HoneError: nothing answers, the key is refused, or the service doesn't serve that.
    """
    require_packages()
    return ask(url, access, reference)


def require_packages() -> None:
    """Raise UnavailableError where Locust or SciPy is missing: before the load, for what it measured would be lost."""
    for package in ("locust", "scipy"):
        if find_spec(package) is None:
            raise UnavailableError(f"{package} is not installed", "pip install 'hone[bench]'")


def calls_for(target: Target, rows: int, seed: int = 0) -> Workload:
    """Return different requests of so many rows each; `run_load` sends them at a scenario's times."""
    return make(target, Scenario(rows=rows, seed=seed))


def make(target: Target, scenario: Scenario, file: Path | None = None, wire: str = "json") -> Workload:
    """Return a scenario's requests, made of a file's rows, or of the best that the store or the service has."""
    rows = rows_for(target, file, stored(target), scenario.seed)
    return workloads.make(target, scenario, rows, WIRES[wire])


def stored(target: Target) -> store.Entry | None:
    """Return the artifact that a service serves where this host's store has it."""
    try:
        entry = store.resolve(target.tag)
    except (StoreError, HoneError):
        return None
    known = entry.artifact is not None and target.digest == entry.artifact.digest
    return entry if known else None


@dataclass(frozen=True)
class _Run:
    """A run that was made, and what it found."""

    scenario: Scenario
    source: RateSource
    capacity: float | None
    trial: Trial
    measured: dict[str, Any]
    cache_hit_ratio: float | None


def bench(
    target: Target,
    *,
    out: Path,
    scenario: Scenario,
    progress: Callable[[str], None],
    options: Options | None = None,
) -> LoadReport:
    """Load a service and write `load.json`, `load.html` and `load.svg` to `out`.

    An open loop without a rate gets half of what a short closed loop reaches: a load at which a healthy service's
    latency is its own and not its queue's, and at which a generator on the same cores is in time. It is halved again
    where the generator isn't.

    Args:
        target: the model.
        out: a folder.
        scenario: the load.
        progress: told what happens, in words.
        options: how it is run.

    Raises:
        HoneError: the service gives no good answer, `out` can't be written to, or the baseline is of another model or
            load.
    """
    options = options or Options()
    check_writable(out, "load.json (--out)")
    if options.baseline is not None:
        options.baseline.require_same(target, scenario, options.wire)
    workload = options.workload or make(target, scenario, options.rows, options.wire)
    progress(workload.words)
    if options.workload is None and scenario.kind == "open" and scenario.rate is None:
        run = _at_a_rate_that_holds(target, scenario, workload, options, progress)
    else:
        source: RateSource = "closed loop" if scenario.kind == "closed" else "given"
        run = _once(target, scenario, workload, options, progress, "recorded" if options.workload else source)
    report = _report(target, workload, run, options)
    write_load_report(report, out)
    return report


def _report(target: Target, workload: Workload, run: _Run, options: Options) -> LoadReport:
    """Check a run's answers, judge it and put all of it together; a void run has no figures."""
    entry = stored(target)
    checked = check(target, entry.opened() if entry else None, workload, run.trial.kept, options.wire)
    measured = _without_figures(run.measured, _why_void(target, run.measured, checked))
    verdicts = {}
    if not measured["generator"].void:
        latencies, failed = outcomes(run.trial.sent, run.scenario)
        verdicts = judged(measured, latencies, failed, options.limits, options.baseline)
    return LoadReport(
        model=target.tag,
        digest=target.digest,
        url=target.url,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        scenario=run.scenario,
        rate_source=run.source,
        protocol=options.wire,
        probed_capacity=run.capacity,
        host=host(),
        distinct_rows=workload.rows.distinct,
        rows_from=workload.rows.source,
        cache_hit_ratio=run.cache_hit_ratio,
        checked=checked,
        **verdicts,
        **measured,
    )


def _at_a_rate_that_holds(
    target: Target, scenario: Scenario, workload: Workload, options: Options, progress: Callable[[str], None]
) -> _Run:
    """Probe what the service reaches, and run at a share of it at which the generator is in time, too."""
    progress(f"probing the capacity of {target.url} with {PROBE.users} callers")
    probe = PROBE.model_copy(update={"rows": scenario.rows, "sizes": scenario.sizes})
    reached = run_trial(target, probe, workloads.at(workload, probe), options.wire).sent
    if reached.interrupted:
        raise KeyboardInterrupt
    found = measure(reached, probe)
    if not found["rate"]:
        reasons = ", ".join(found["errors_by_kind"])
        raise HoneError(f"{target.url}: the probe got no good answer: {reasons}; the service's log may say why")
    for halved in range(1, TRIES + 1):
        rate = found["rate"] / 2**halved
        here = scenario.model_copy(update={"rate": round(rate, 1) if rate >= 1 else rate})
        source: RateSource = "half of the probed capacity" if halved == 1 else "a share of the probed capacity"
        run = _once(target, here, workloads.at(workload, here), options, progress, source, found["rate"])
        void = run.measured["generator"].void
        if not void or run.trial.sent.interrupted or halved == TRIES:
            break
        progress(f"{void}; half of that rate is tried")
    return run


def _once(
    target: Target,
    scenario: Scenario,
    workload: Workload,
    options: Options,
    progress: Callable[[str], None],
    source: RateSource,
    capacity: float | None = None,
) -> _Run:
    if options.workload is None:
        workload = workloads.at(workload, scenario)
    progress(f"{scenario.duration_s:g} s of {scenario.words}")
    before = cache_looks(target)
    trial = run_trial(target, scenario, workload, options.wire)
    ratio = _hit_ratio(before, cache_looks(target))
    return _Run(scenario, source, capacity, trial, measure(trial.sent, scenario, options.most_late), ratio)


def run_load(target: Target, scenario: Scenario, workload: Workload) -> Sent:
    """Send a workload's requests at a scenario's times, and return what was noted of each.

    Raises:
        HoneError: Locust or a sender ended with an error.
    """
    sent = run_trial(target, scenario, workloads.at(workload, scenario), "json").sent
    if sent.interrupted:
        raise KeyboardInterrupt
    return sent


def _hit_ratio(before: dict[str, float] | None, after: dict[str, float] | None) -> float | None:
    """Return the share of looks into the service's cache that found something; None where there were none."""
    if before is None or after is None:
        return None
    looks = {result: count - before.get(result, 0.0) for result, count in after.items()}
    total = sum(looks.values())
    return round(sum(count for result, count in looks.items() if result != "miss") / total, 4) if total > 0 else None


def _why_void(target: Target, measured: dict[str, Any], checked: Answers) -> str | None:
    if checked.wrong:
        return f"{checked.wrong} of {checked.compared} answers are not the artifact's: {checked.reason}"
    try:
        digest = ask(target.url, target.access, target.tag).digest
    except HoneError:
        digest = target.digest  # it is gone, which the errors tell
    if digest != target.digest:
        return f"the service answers with another artifact than at the start, {str(digest)[:12]}"
    void: str | None = measured["generator"].void
    return void


def _without_figures(measured: dict[str, Any], void: str | None) -> dict[str, Any]:
    """Return what was measured; of a void run without rates and latencies: none of them is the service's."""
    if not void:
        return measured
    generator = measured["generator"].model_copy(update={"void": void})
    return {**measured, **dict.fromkeys(FIGURES), "histogram": [], "timeline": [], "generator": generator}
