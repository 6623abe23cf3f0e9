"""A capacity from a running service to its file: progress, what is kept meanwhile, and the result in words."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hone.capacity import Capacity, Slo, Trial
from hone.describe.revision import made_by
from hone.errors import HoneError
from hone.files import check_writable
from hone.hardware import host

from ..load.target import Target
from ..records import LATE_SHARE
from ..reports.capacity import write_capacity_report
from .kept import Content, Kept, Question
from .runs import Load, Runs, Void, slow_share
from .search import Effort, Found, limited_by, minutes, requests_to_decide, search
from .service import Service

_Runs = Trial | Void
_KEPT = Content[Question, _Runs]


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
        most_late: share of requests that the generator may start late; above it, a run is void.
    """

    slo: Slo
    rows: int = 1
    effort: Effort = field(default_factory=Effort)
    url: str | None = None
    workers: int = 1
    ready_s: float | None = None
    image: str | None = None
    command: str = ""
    most_late: float = LATE_SHARE


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
        HoneError: the service misses the limits at any load, died, the generator holds no rate, or nothing can be
            written to the folder.
        StoppedError: Ctrl-C, or the disk is full meanwhile.
    """
    check_writable(out.parent, f"{out.name} (--out)")
    kept = Kept(out, _question(target, request), _KEPT)
    earlier = kept.read()
    if earlier:
        progress(f"going on from {len(earlier)} trials in {kept.file}")
    runs = Runs(load or Service(target, request.rows, request.most_late), request.slo, earlier)
    runs.on_run = _follow(runs, kept, request, len(earlier), progress)
    with kept.told():
        found = search(runs, request.effort)
        if not found.rate:
            kept.remove()
            raise HoneError(_nothing_passes(found, target, request.slo))
        capacity = _capacity(target, request, found)
        write_capacity_report(capacity, out)
    kept.remove()
    return capacity


def _question(target: Target, request: Request) -> Question:
    effort = request.effort
    return Question(
        model=target.tag, digest=target.digest, url=request.url, host=host(), slo=request.slo, rows=request.rows,
        workers=request.workers, duration_s=effort.duration_s, repeats=effort.repeats,
        most_late=request.most_late,
    )  # fmt: skip


def _follow(
    runs: Runs, kept: Kept[Question, _Runs], request: Request, earlier: int, progress: Callable[[str], None]
) -> Callable[[_Runs, float], None]:
    """Return what keeps each trial that ran, and tells of it."""
    slo = request.slo

    def follow(trial: _Runs, left_s: float) -> None:
        if len(runs.made) <= earlier and runs.earlier:
            return
        kept.write(runs.made)
        if isinstance(trial, Void):
            progress(f"{trial.rate:,.1f}/s for {trial.asked_s:.0f} s: void, {trial.void}")
            return
        value = getattr(trial, slo.percentile)
        progress(
            f"{trial.rate:,.1f}/s for {trial.duration_s:.0f} s: {slo.percentile.removesuffix('_ms')} {value:.1f} ms, "
            f"{trial.verdict}; at most {minutes(left_s - trial.took_s)} left"
        )

    return follow


def _nothing_passes(found: Found, target: Target, slo: Slo) -> str:
    worst, void = found.search[-1] if found.search else None, found.void
    if void and (worst is None or void.rate < worst.rate):
        return (
            f"the load generator was the limit: at {void.rate:g} requests/s {void.void}, each time; nothing was "
            "proven; let the machine do less beside it, or allow it: --max-late"
        )
    assert worst is not None
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
        generator_limit=f"at {found.void.rate:,.1f}/s {found.void.void}" if found.void else "",
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
        "limited_by": limited_by(found),
        "repeats": repeats,
    }


def _open_question(found: Found, request: Request) -> str:
    """Return what would prove a rate, where the time was too short for one."""
    if found.proven:
        return ""
    if found.void and not found.proofs:
        return "no rate is proven: the load generator was the limit"
    words = "no rate is proven: the time was too short"
    if not found.proofs:
        return f"{words} for a proof; give more --minutes"
    rate, wanted = found.proofs[-1].rate, requests_to_decide(found.proofs, request.slo)
    if wanted is None:
        return f"{words}, and {rate:,.1f}/s is too near to the limit to be decided; give more --minutes"
    return f"{words}; at {rate:,.1f}/s about {wanted:,} more requests ({minutes(wanted / rate)}) would decide"
