"""The search of serving settings from a model's name to its files: what remains is proven, and the best of it wins."""

from __future__ import annotations

import datetime
import time
from pathlib import Path

from hone.capacity import Capacity, read_capacity
from hone.errors import HoneError
from hone.evidence.bounds import MATERIAL
from hone.files import check_writable
from hone.hardware import host
from hone.services.launch import running

from ..capacity.find import Request as CapacityRequest
from ..capacity.find import find_capacity
from ..capacity.kept import Content, Kept, StoppedError
from ..capacity.search import Effort, minutes
from ..load.target import Access, ask
from ..reports.capacity import write_capacity_report
from ..reports.tuning import write_tuning_report
from ..tuned import Choice, Tried, Tuning
from .candidates import candidates, variants
from .elimination import Remaining, Visit, front
from .trials import Progress, Question, Request, Trials
from .visit import settings_of

PROOFS = 3
"""Of what remains, so many are proven: more would leave too little time for each."""


def find_settings(request: Request, out: Path, progress: Progress = lambda _: None) -> tuple[Tuning, Capacity]:
    """Search the settings that give the most rate for the least cost, and prove what the winner holds.

    Writes `capacity.json` of the winner, and `tune.json` with its page beside it; the proofs of all that remained are
    in the folder `tune-proofs`. Trials are kept beside the file until then; a search of the same goes on from them.

    Raises:
        HoneError: no candidate holds the limit, or nothing can be written to the folder.
        StoppedError: Ctrl-C, or the disk is full meanwhile.
    """
    entries, left_out = variants(request.model)
    for line in left_out:
        progress(line)
    file, proofs = out.with_name("tune.json"), out.with_name("tune-proofs")
    check_writable(out.parent, f"{out.name} (--out)")
    choices = candidates(entries, request.rows, request.workers)
    question = Question(
        choices=choices, digests=[entry.opened(verify=False).digest for entry in entries], host=host(),
        slo=request.slo, rows=request.rows, duration_s=request.effort.duration_s, most_late=request.most_late,
    )  # fmt: skip
    trials = Trials(choices, request, Kept(file, question, Content[Question, Visit]), progress)
    if not trials.earlier:
        for stale in proofs.glob("*/capacity.json"):
            stale.unlink()
    with trials.kept.told():
        remaining = trials.search()
        proven = _prove(request, choices, remaining, proofs, trials.left_s, progress)
        tuning = _tuning(request, choices, remaining, proven, trials.spent_s)
        capacity = proven[tuning.winner]
        write_capacity_report(capacity, out)
        write_tuning_report(tuning, file)
    trials.kept.remove()
    return tuning, capacity


def _prove(
    request: Request, choices: list[Choice], remaining: Remaining, folder: Path, left_s: float, progress: Progress
) -> dict[int, Capacity]:
    """Return the capacities of what remains in the front, searched as `hone bench capacity` does.

    Those of the most rate and the cheapest one are proven; what fails at it leaves.

    Raises:
        HoneError: all do.
    """
    chosen = _front(request, remaining)
    for one in [one for one in remaining.alive if one not in chosen]:
        remaining.leave(one, "not told apart beyond doubt from what holds more for no more cost")
    axes = {one: remaining.costs[one].axes(request.prices) for one in chosen}
    cheapest = min(chosen, key=lambda one: axes[one])
    to_prove = list(dict.fromkeys([*chosen[: PROOFS - 1], cheapest]))
    for one in [one for one in chosen if one not in to_prove]:
        remaining.leave(one, f"remained, and is not proven: {PROOFS} are at most")
    found: dict[int, Capacity] = {}
    for place, one in enumerate(to_prove):
        share_s = left_s / len(to_prove)
        progress(f"proof {place + 1} of {len(to_prove)}, {choices[one].words}: at most {minutes(share_s)}")
        try:
            found[one] = _capacity(request, choices[one], remaining, one, folder / str(one), share_s, progress)
        except StoppedError:
            raise
        except HoneError as error:
            progress(f"out: {error}")
            remaining.leave(one, str(error))
    if not found:
        raise HoneError(f"no candidate holds {request.slo.words} in its proof: {remaining.out[to_prove[-1]]}")
    _leave_by_proof(request, choices, remaining, found)
    return found


def _front(request: Request, remaining: Remaining) -> list[int]:
    rates = {one: remaining.rate(one) or 0.0 for one in remaining.alive}
    return front(rates, {one: remaining.costs[one].axes(request.prices) for one in remaining.alive})


def _capacity(
    request: Request, choice: Choice, remaining: Remaining, one: int, folder: Path, budget_s: float, progress: Progress
) -> Capacity:
    """Return the capacity of a candidate; one that was proven before the search was interrupted is read."""
    file, plan = folder / "capacity.json", remaining.plans.get(one)
    if file.is_file():
        return read_capacity(file)
    effort = Effort(request.effort.duration_s, request.effort.repeats, budget_s)
    started = time.monotonic()
    with running(choice.model, **settings_of(choice, plan)) as url:
        ready_s = time.monotonic() - started
        target = ask(url, Access(), choice.model)
        wanted = CapacityRequest(
            request.slo, request.rows, effort, workers=choice.workers, ready_s=ready_s, command=request.command,
            most_late=request.most_late,
        )  # fmt: skip
        return find_capacity(target, wanted, file, progress)


def _leave_by_proof(request: Request, choices: list[Choice], remaining: Remaining, found: dict[int, Capacity]) -> None:
    """Let what the proofs say is beaten leave the front."""
    axes = {one: remaining.costs[one].axes(request.prices) for one in found}
    kept = front({one: capacity.safe_rate for one, capacity in found.items()}, axes)
    for one in [one for one in found if one not in kept]:
        remaining.leave(one, f"its proof holds less than that of {choices[kept[0]].words}, for no less cost")


def _tuning(
    request: Request, choices: list[Choice], remaining: Remaining, found: dict[int, Capacity], spent_s: float
) -> Tuning:
    tried = [_tried(request, choice, remaining, one, found.get(one)) for one, choice in enumerate(choices)]
    proofs_s = sum(trial.took_s for capacity in found.values() for trial in [*capacity.search, *capacity.repeats])
    return Tuning(
        model=request.model,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        host=host(),
        command=request.command,
        slo=request.slo,
        rows=request.rows,
        prices=request.prices,
        seconds=remaining.seconds,
        took_s=round(spent_s + proofs_s, 1),
        tried=tried,
        winner=_winner(request, {one: tried[one] for one in found if not tried[one].out}),
    )


def _tried(request: Request, choice: Choice, remaining: Remaining, one: int, capacity: Capacity | None) -> Tried:
    cost, rate = remaining.costs.get(one), remaining.rate(one)
    price = cost.price(request.prices) if cost else None
    return Tried(
        choice=choice,
        plan=remaining.plans.get(one),
        rates=remaining.rates.get(one, []),
        rate=None if rate is None else round(rate, 3),
        cost=cost,
        price_per_hour=None if price is None else round(price, 6),
        out=remaining.out.get(one, ""),
        proven=capacity.rate_lower_95 if capacity else None,
        capacity=capacity.rate if capacity else None,
    )


def _winner(request: Request, proven: dict[int, Tried]) -> int:
    """Return the cheapest for a million requests; without prices, the cheapest of those that hold about the most."""
    if request.prices.given:
        return min(proven, key=lambda one: proven[one].per_million(request.prices) or 0.0)
    most = max(tried.holds for tried in proven.values())
    about = [one for one, tried in proven.items() if tried.holds >= (1 - MATERIAL) * most]
    return min(about, key=lambda one: (cost.cores, cost.memory_mb) if (cost := proven[one].cost) else (0.0, 0.0))
