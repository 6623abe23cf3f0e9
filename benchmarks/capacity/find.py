"""A capacity from a running service to its file: progress, what is kept meanwhile, and the result in words."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hone.capacity import Capacity, Slo, Trial
from hone.describe.revision import made_by
from hone.errors import HoneError
from hone.files import check_writable
from hone.hardware import host

from ..load.target import Target
from ..records import LATE_SHARE
from ..reports.capacity import write_capacity_report
from .kept import Kept, Question
from .runs import Load, Runs, slow_share
from .search import Effort, Found, requests_to_decide, search
from .service import Service


class StoppedError(HoneError):
    """Ctrl-C, with trials that are kept."""

    exit_code = 130


@dataclass(frozen=True)
class Request:
    """What is searched.

    Attributes:
        slo: the limits.
        rows: in each request.
        effort: how long it may take.
        url: of a service that ran already; None: it was started for this.
        workers, ready_s: of the service, for the record, where the service doesn't tell its plan.
        image: that the service runs from, for the record; None: from none.
        command: for the record.
    """

    slo: Slo
    rows: int = 1
    effort: Effort = field(default_factory=Effort)
    url: str | None = None
    workers: int = 1
    ready_s: float | None = None
    image: str | None = None
    command: str = ""


def find_capacity(
    target: Target,
    request: Request,
    out: Path,
    progress: Callable[[str], None] = lambda _: None,
    load: Load | None = None,
) -> Capacity:
    """Search the capacity of a running service, and write it with its pictures and tables.

    Trials are kept beside the file until it is written; a search of the same goes on from them.

    Args:
        target: the model.
        request: what is searched.
        out: file of the result, `capacity.json`.
        progress: told of each trial, in words.
        load: what loads the service; None: an open loop, with Locust.

    Raises:
        HoneError: the service misses the limits at any load, died, or nothing can be written to the folder.
        StoppedError: Ctrl-C.
    """
    check_writable(out.parent, f"{out.name} (--out)")
    kept = Kept(out, _question(target, request))
    earlier = kept.read()
    if earlier:
        progress(f"going on from {len(earlier)} trials in {kept.file}")
    runs = Runs(load or Service(target, request.rows), request.slo, earlier)
    runs.on_trial = _follow(runs, kept, request, len(earlier), progress)
    try:
        found = search(runs, request.effort)
    except KeyboardInterrupt:
        raise StoppedError(_interrupted(runs, kept)) from None
    except HoneError as error:
        raise HoneError(f"{error}{_kept_in(runs, kept)}") from None
    if not found.rate:
        kept.remove()
        raise HoneError(_nothing_passes(found.search[-1], target, request.slo))
    capacity = _capacity(target, request, found)
    write_capacity_report(capacity, out)
    kept.remove()
    return capacity


def _question(target: Target, request: Request) -> Question:
    effort = request.effort
    return Question(
        model=target.tag, digest=target.digest, url=request.url, host=host(), slo=request.slo, rows=request.rows,
        workers=request.workers, duration_s=effort.duration_s, repeats=effort.repeats,
    )  # fmt: skip


def _follow(
    runs: Runs, kept: Kept, request: Request, earlier: int, progress: Callable[[str], None]
) -> Callable[[Trial, float], None]:
    """Return what keeps each trial that ran, and tells of it."""
    slo = request.slo

    def follow(trial: Trial, left_s: float) -> None:
        if len(runs.done) <= earlier and runs.earlier:
            return
        kept.write(runs.done)
        value = getattr(trial, slo.percentile)
        progress(
            f"{trial.rate:,.1f}/s for {trial.duration_s:.0f} s: {slo.percentile.removesuffix('_ms')} {value:.1f} ms, "
            f"{trial.verdict}; at most {_minutes(left_s - trial.took_s)} left"
        )

    return follow


def _minutes(seconds: float) -> str:
    seconds = max(seconds, 0.0)
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _kept_in(runs: Runs, kept: Kept) -> str:
    count = len(runs.done)
    if not count:
        return ""
    return f"; {count} trial{'s are' if count > 1 else ' is'} kept in {kept.file}, the same command goes on from there"


def _interrupted(runs: Runs, kept: Kept) -> str:
    return f"interrupted{_kept_in(runs, kept)}"


def _nothing_passes(worst: Trial, target: Target, slo: Slo) -> str:
    return (
        f"{target.tag} misses {slo.words} even at {worst.rate:g} requests/s ({getattr(worst, slo.percentile):.1f} ms, "
        f"{worst.error_share:.1%} errors); raise the limit"
    )


def _capacity(target: Target, request: Request, found: Found) -> Capacity:
    proof = found.proven or (found.proofs[-1] if found.proofs else None)
    repeats = list(proof.trials) if proof else [trial for trial in found.search if trial.passed][-1:]
    return Capacity(
        model=target.tag,
        digest=target.digest,
        image=request.image,
        plan=target.plan,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        host=host(),
        command=request.command,
        made_by=made_by(),
        slo=request.slo,
        rows=request.rows,
        workers=target.plan.workers if target.plan is not None else request.workers,
        ready_s=None if request.ready_s is None else round(request.ready_s, 2),
        search=[*found.search, *(trial for other in found.proofs if other is not proof for trial in other.trials)],
        open_question=_open_question(found, request),
        **_measured(found, request, repeats),
    )


def _measured(found: Found, request: Request, repeats: list[Trial]) -> dict[str, Any]:
    """Return the measured fields of a capacity: its rates, and what the repeats and the search tell."""
    values = [getattr(trial, request.slo.percentile) for trial in repeats]
    mean_ms = statistics.median(trial.mean_ms for trial in repeats)
    seconds = sum(trial.duration_s for trial in repeats)
    share = slow_share(repeats)
    return {
        "rate": round(found.rate, 1),
        "rate_lower_95": round(found.proven.rate, 1) if found.proven else None,
        "goodput": round((share.of - share.count) / seconds, 1),
        "rows_per_s": round(found.rate * request.rows, 1),
        "spread": round((max(values) - min(values)) / statistics.median(values), 4),
        "in_flight_rows": round(repeats[0].rate * request.rows * mean_ms / 1e3, 3),
        "limited_by": _limited_by(found),
        "repeats": repeats,
    }


def _limited_by(found: Found) -> Literal["service", "generator"]:
    """Return what gave out above the rate: the generator, when it was late in every trial that failed there."""
    failed = [trial for trial in found.search if not trial.passed and trial.rate > found.rate]
    return "generator" if failed and all(trial.late_share > LATE_SHARE for trial in failed) else "service"


def _open_question(found: Found, request: Request) -> str:
    """Return what would prove a rate, where the time was too short for one."""
    if found.proven:
        return ""
    words = "no rate is proven: the time was too short"
    if not found.proofs:
        return f"{words} for a proof; give more --minutes"
    rate, wanted = found.proofs[-1].rate, requests_to_decide(found.proofs, request.slo)
    if wanted is None:
        return f"{words}, and {rate:,.1f}/s is too near to the limit to be decided; give more --minutes"
    return f"{words}; at {rate:,.1f}/s about {wanted:,} more requests ({_minutes(wanted / rate)}) would decide"
