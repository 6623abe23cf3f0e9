"""Latency, in turns that all variants take part in; the turns of those that can't win any more end early."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hone.artifact import Latency
from hone.evidence.bounds import median_interval, round_percentiles
from hone.recipe import MeasureSpec

from ..disturbance import HostWatch
from ..probe_process import ProbeProcess
from ..subject import Subject, blame
from .referee import OUT_OF_TIME, Joules, Referee, Rounds

FEWEST_TURNS = 3
"""Turns that each has who answered, also one that can't win: its figures are rough, and say so by their turns."""

SIDE_TURNS = 6
"""Of what decides nothing: the fewest whose bounds hold at 95 % confidence."""


@dataclass(frozen=True)
class Stage:
    """Turns at one thread count.

    Attributes:
        threads: of one call.
        batches: sizes; each is timed once in a turn.
        turns: of them.
        decides: the race is run here; else those that are left after it are timed.
    """

    threads: int
    batches: tuple[int, ...]
    turns: int
    decides: bool = False


def stages_of(measure: MeasureSpec, threads: Sequence[int], referee: Referee | None) -> list[Stage]:
    """Return what is timed: everything in all turns; in a race first what decides, then the rest in fewer.

    Args:
        measure: of the recipe.
        threads: counts on this host, in the recipe's order.
        referee: of the race, or None.
    """
    if referee is None or referee.full:
        return [Stage(count, measure.batches, measure.rounds) for count in threads]
    batch, count = referee.decides
    few = min(SIDE_TURNS, measure.rounds)
    beside = tuple(size for size in measure.batches if size != batch)
    here = [Stage(count, beside, few)] if beside else []
    others = [Stage(other, measure.batches, few) for other in threads if other != count]
    return [Stage(count, (batch,), measure.rounds, decides=True), *here, *others]


class Timing:
    """Times subjects.

    Args:
        subjects: the source first; those without a process are left out.
        probes: a process each, by name.
        measure: of the recipe.
        watch: of the host; it ticks once a turn.
        referee: of the race, or None.
        loaded: for how many threads each is loaded that is.
    """

    def __init__(
        self,
        subjects: Sequence[Subject],
        probes: Mapping[str, ProbeProcess],
        measure: MeasureSpec,
        watch: HostWatch,
        referee: Referee | None,
        loaded: Mapping[str, int],
    ) -> None:
        self._all = [subject for subject in subjects if subject.name in probes]
        self._left = list(self._all)
        self._probes, self._measure, self._watch, self._referee = probes, measure, watch, referee
        self.threads = dict(loaded)
        """That each one is loaded for now."""

    def run(self, stages: Sequence[Stage], progress: Callable[[int, str], None]) -> None:
        """Go through the stages; `progress` is called with (turns done, what)."""
        done = 0
        for stage in stages:
            for turn in range(stage.turns):
                alive = [subject for subject in self._left if not subject.failure]
                if self._is_over(stage, turn, alive):
                    break
                progress(done + turn, _words(stage, turn, len(alive)))
                self._turn(stage, turn, alive)
                if stage.decides and self._referee is not None:
                    self._stop(self._referee.stops(*self._seen(stage)))
            if stage.decides:
                self._recall(stage)
            done += stage.turns

    def _is_over(self, stage: Stage, turn: int, alive: Sequence[Subject]) -> bool:
        """True when no more turns are worth their time: none is left, or the source alone, or the time is over."""
        if not alive or self._referee is None:
            return not alive
        ranks = stage.decides or self._referee.full
        if turn >= (FEWEST_TURNS if ranks else 1) and self._referee.is_late():
            for subject in alive[1:] if ranks else ():
                subject.stopped = f"{OUT_OF_TIME} after {turn} of {stage.turns} turns"
            return True
        return stage.decides and turn >= SIDE_TURNS and len(alive) == 1

    def _turn(self, stage: Stage, turn: int, alive: Sequence[Subject]) -> None:
        for subject in alive:
            if self.threads.get(subject.name) != stage.threads:
                with blame(subject):
                    self._probes[subject.name].ask("load", threads=stage.threads)
                    self.threads[subject.name] = stage.threads
        self._watch.tick()
        # Each turn starts with another variant, so that none always follows the same one.
        first = turn % len(alive)
        for subject in (*alive[first:], *alive[:first]):
            self._time(subject, stage)

    def _time(self, subject: Subject, stage: Stage) -> None:
        for batch in stage.batches:
            if subject.failure:
                return
            with blame(subject):
                asked = {"batch": batch, "milliseconds": self._measure.round_ms}
                found = self._probes[subject.name].ask("time", **asked)
                subject._rounds.setdefault((batch, stage.threads), []).append(found["latencies_ns"])
                subject._joules.setdefault((batch, stage.threads), []).append(found["joules"])

    def _seen(self, stage: Stage) -> tuple[dict[str, Rounds], dict[str, Joules]]:
        """Return what each that is left took so far at the stage's first batch size, and what it used."""
        key = (stage.batches[0], stage.threads)
        alive = [subject for subject in self._left if not subject.failure]
        return {one.name: one._rounds[key] for one in alive}, {one.name: one._joules[key] for one in alive}

    def _stop(self, reasons: Mapping[str, str]) -> None:
        for subject in self._left:
            if subject.name in reasons:
                # One that was stopped while it answered has the more telling reason.
                subject.stopped = subject.stopped or reasons[subject.name]
        self._left = [subject for subject in self._left if subject.name not in reasons]

    def _recall(self, stage: Stage) -> None:
        """Give those their missing turns that lost to one which can't win itself."""
        back = self._referee.recalls(*self._seen(stage)) if self._referee else frozenset()
        key = (stage.batches[0], stage.threads)
        called = [subject for subject in self._all if subject.name in back and not subject.failure]
        for subject in called:
            subject.stopped = ""
        for turn in range(stage.turns):
            missing = [one for one in called if not one.failure and len(one._rounds[key]) <= turn]
            if missing:
                self._turn(stage, turn, missing)
        self._left += called


def _words(stage: Stage, turn: int, timed: int) -> str:
    threads = f"{stage.threads} thread{'s' if stage.threads > 1 else ''}"
    return f"latency, {threads}, turn {turn + 1}/{stage.turns}, {timed} timed"


def latency_of(key: tuple[int, int], rounds: Rounds, joules: Joules = ()) -> Latency:
    """The median of the rounds' medians, which one disturbed round doesn't move; in tails each round counts alike.

    Energy is that of all rounds over their rows: its counters are too coarse for one round's figure to mean much.
    """
    batch, threads = key
    milliseconds = [np.asarray(latencies) / 1e6 for latencies in rounds]
    medians = [round(float(np.median(values)), 6) for values in milliseconds]
    p50 = float(np.median(medians))
    low, high = median_interval(medians)
    calls, known = sum(len(values) for values in milliseconds), [used for used in joules if used is not None]
    p95, p99 = round_percentiles(milliseconds, (95, 99))
    return Latency(
        batch=batch,
        threads=threads,
        p50=round(p50, 6),
        p50_low=low,
        p50_high=high,
        p95=round(p95, 6),
        p99=round(p99, 6),
        mean=round(float(np.mean([values.mean() for values in milliseconds])), 6),
        rows_per_s=round(batch * 1e3 / p50, 3),
        calls=calls,
        joules_per_1000_rows=round(1000 * sum(known) / (calls * batch), 6)
        if known and len(known) == len(joules)
        else None,
        rounds=tuple(medians),
    )
