"""The trials of a search: asked for, kept in a file, told of, and gone on from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hone.capacity import Slo
from hone.errors import HoneError
from hone.records import Record

from ..capacity.kept import Kept
from ..capacity.search import Effort, minutes
from ..records import LATE_SHARE
from ..tuned import Choice, Prices
from .elimination import Elimination, Remaining, Rules, Visit
from .visit import Visits

SEARCH_SHARE = 0.5
"""Of the time, for the trials; the rest is for the proofs."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What is searched.

    Attributes:
        model: NAME for all its variants, or one of them.
        slo: the limits.
        rows: in each request.
        effort: seconds of the first trials, repeats of a proof, and the time for all.
        workers: the only number of them to try; None: any.
        prices: of cores and memory.
        most_late: share of requests that the generator may start late; above it, a run is void.
        command: for the record.
    """

    model: str
    slo: Slo
    rows: int = 1
    effort: Effort = field(default_factory=Effort)
    workers: int | None = None
    prices: Prices = field(default_factory=Prices)
    most_late: float = LATE_SHARE
    command: str = ""


class Question(Record):
    """What the search is of: trials of another one are no answer to it."""

    choices: list[Choice]
    digests: list[str]
    host: dict[str, Any]
    slo: Slo
    rows: int
    duration_s: float
    most_late: float


class Trials:
    """The trials of a search: those of an earlier one stand in for those that would be the same.

    Args:
        choices: the candidates.
        request: what is searched.
        kept: where trials are kept.
        progress: told of each, in words.
        visits: what makes them; None: services on this machine.
    """

    def __init__(
        self,
        choices: list[Choice],
        request: Request,
        kept: Kept[Question, Visit],
        progress: Progress,
        visits: Visits | None = None,
    ) -> None:
        self._choices, self._request, self._progress = choices, request, progress
        self._visits = visits or Visits(choices, request.slo, request.rows, request.most_late)
        self.kept = kept
        self.earlier = kept.read()
        self._made: list[Visit] = []

    @property
    def spent_s(self) -> float:
        return sum(visit.took_s for visit in self._made)

    @property
    def left_s(self) -> float:
        return self._request.effort.budget_s - self.spent_s

    def search(self) -> Remaining:
        """Return what remains of the candidates; raises HoneError when nothing does."""
        request, names = self._request, [choice.words for choice in self._choices]
        budget_s = SEARCH_SHARE * request.effort.budget_s
        rules = Rules(names, lambda cost: cost.axes(request.prices), request.effort.duration_s, budget_s)
        self._progress(f"{len(names)} candidates; at most {minutes(budget_s)} of trials, then proofs")
        if self.earlier:
            count = len(self.earlier)
            self._progress(f"going on from {count} trial{'s' if count > 1 else ''} in {self.kept.file}")
        remaining = Elimination(rules, self._visit, self._follow).run()
        if not remaining.alive:
            self.kept.remove()
            reasons = dict.fromkeys(remaining.out.values())
            raise HoneError(f"no candidate holds {request.slo.words}: {'; '.join(reasons)}")
        return remaining

    def _visit(self, candidate: int, seconds: float) -> Visit:
        place = len(self._made)
        earlier = self.earlier[place] if place < len(self.earlier) else None
        if earlier is not None and (earlier.candidate, earlier.asked_s) == (candidate, seconds):
            visit = earlier
            self._visits.know(visit)
        else:
            self.earlier = []
            visit = self._visits(candidate, seconds)
        self._made.append(visit)
        if len(self._made) > len(self.earlier):
            self.kept.write(self._made)
        return visit

    def _follow(self, visit: Visit, number: int, left_s: float) -> None:
        if len(self._made) <= len(self.earlier):
            return
        what = f"out: {visit.out}" if visit.rate is None else f"{visit.rate:,.1f}/s"
        proof_s = (1 - SEARCH_SHARE) * self._request.effort.budget_s
        self._progress(
            f"round {number}, {self._choices[visit.candidate].words}: {what}; at most {minutes(left_s + proof_s)} left"
        )
