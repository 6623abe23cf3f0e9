"""The report of an experiment, from what services counted and what is known of their answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from hone.errors import HoneError
from hone.evidence.arms.bandit import Stage, weighed_difference
from hone.evidence.arms.dealt import is_misdealt
from hone.evidence.arms.means import Difference, Sums, difference, units_missing
from hone.evidence.arms.winner import Decision, decide, gains, is_breach
from hone.evidence.canary import RISK, Check
from hone.services.arms.counts import Done
from hone.services.arms.evidence import BEYOND, Limits
from hone.services.arms.split import WHOLE

from .counts import Counts
from .figures import Figures, gather
from .metrics import COUNTED, Guard, Metric
from .report import ArmRow, Compared, Dealt, Guarded, Outcome, Report, Row, between, number, signed
from .state import Experiment

Differences = dict[str, Difference]


@dataclass
class Judge:
    """Looks at an experiment at one moment.

    Args:
        experiment: as it stands.
        counts: of its services.
        now: seconds since 1970.
        notes: to which more are added.
    """

    experiment: Experiment
    counts: Counts
    now: float
    notes: list[str] = field(default_factory=list)
    _figures: Figures | None = None
    _problem: str = ""

    def report(self) -> Report:
        """Return what is known."""
        one = self.experiment
        self._gather()
        found = {metric.name: self._differences(metric, RISK) for metric in one.metrics}
        compared = tuple(self._compared(metric, *found[metric.name]) for metric in one.metrics)
        dealt, guards = self._dealt(), self._guards()
        decision = self._decision(found[one.metric.name][0], dealt)
        outcome: Outcome = "invalid" if decision is None else decision.outcome
        winner = decision.arm if decision is not None else ""
        told, missing = self._told(outcome, decision, compared[0], found[one.metric.name][0], dealt)
        return Report(
            model=one.name, experiment=one.id, status=one.status, ran_s=one.ran_s(self.now), services=one.urls,
            at=datetime.fromtimestamp(self.now, UTC).isoformat(timespec="seconds"), sticky=one.sticky,
            unit="caller" if one.sticky else "request", bandit=one.bandit, arms=self._arms(), metric=one.metric.name,
            compared=compared, confidence=1 - RISK, dealt=dealt, guards=guards, outcome=outcome, winner=winner,
            told=told, missing=missing, planned=int(one.units), notes=tuple(self.notes), answer=one.answer,
            why_ended=one.told,
        )  # fmt: skip

    def sums(self) -> list[Sums]:
        """Return what is known of each arm by the metric that decides, of all stages."""
        stages = self._stages(self.experiment.metric)
        arms = range(len(self.experiment.arms))
        return [sum((stage.arms[arm] for stage in stages), Sums()) for arm in arms]

    def _gather(self) -> None:
        """Read kept answers, where a metric needs them, or they say how callers were dealt."""
        one = self.experiment
        wanted = {metric.name: metric for metric in (*one.metrics, *(guard.metric for guard in one.guards))}
        metrics = [metric for metric in wanted.values() if metric.name not in COUNTED]
        if not one.since or not (metrics or one.feedback):
            return
        try:
            self._figures = gather(one, metrics, self.now)
        except HoneError as error:
            self._problem = str(error)
            return
        if self._figures.strays and one.sticky:
            self.notes.append(
                f"{self._figures.strays} callers were seen in several arms: a service had another split, or they "
                "sent another value of the header"
            )

    def _stages(self, metric: Metric) -> list[Stage]:
        one = self.experiment
        if self._figures is None or metric.name in COUNTED:
            return []
        pairs = zip(one.stages, self._figures.sums[metric.name], strict=True)
        return [Stage(tuple(weight / WHOLE for weight in at.weights), sums) for at, sums in pairs if at.weights]

    def _differences(self, metric: Metric, risk: float) -> tuple[Differences, dict[str, float]]:
        """Return each variant's difference from the control by a metric, the risk shared out among them, and where
        weights changed what that cost."""
        one, each = self.experiment, risk / len(self.experiment.variants)
        if metric.name in COUNTED:
            return {name: _of_check(self._check(name, metric.name, Limits(), each)) for name in one.variants}, {}
        stages = self._stages(metric)
        if not stages:
            return {}, {}
        if one.bandit:
            both = {
                name: weighed_difference(stages, place, one.units, each)
                for place, name in enumerate(one.variants, start=1)
            }
            return {name: pair[0] for name, pair in both.items()}, {name: pair[1] for name, pair in both.items()}
        control, *variants = stages[0].arms
        planned = [self._planned(place) for place in range(1, len(one.arms))]
        return {
            name: difference(sums, control, units, each)
            for name, sums, units in zip(one.variants, variants, planned, strict=True)
        }, {}

    def _planned(self, place: int) -> float:
        """Return how many of the planned units are of the control and one variant."""
        weights = self.experiment.weights
        return self.experiment.units * (weights[0] + weights[place]) / WHOLE

    def _check(self, arm: str, question: str, limits: Limits, risk: float) -> Check:
        ruling, _ = self.counts.evidence.verdict(arm, limits, risk)
        return next(check for check in ruling.checks if check.name == question)

    def _compared(self, metric: Metric, found: Differences, costs: Mapping[str, float]) -> Compared:
        one = self.experiment
        if not found:
            return Compared(metric=metric.name, better=metric.better, problem=self._problem or "nothing is known yet")
        rows = []
        for place, name in enumerate(one.arms):
            apart = found.get(name)
            mean = apart.mean if apart is not None else next(iter(found.values())).control
            counts, units = self._sizes(metric, place)
            row = Row(arm=name, mean=mean if counts else None, counts=counts, units=units)
            if apart is not None:
                known = math.isfinite(apart.low) and math.isfinite(apart.high)
                row = row.model_copy(update={
                    "difference": apart.point if counts else None, "low": apart.low if known else None,
                    "high": apart.high if known else None, "cost": costs.get(name),
                    "relative": apart.point / abs(apart.control) if apart.control and counts else None,
                })  # fmt: skip
            rows.append(row)
        return Compared(metric=metric.name, better=metric.better, rows=tuple(rows))

    def _sizes(self, metric: Metric, place: int) -> tuple[int, int]:
        name = self.experiment.arms[place]
        if metric.name in COUNTED or self._figures is None:
            done = self.counts.pooled.arms.get(name, Done())
            return done.requests, done.requests
        units = sum(int(stage[place].units) for stage in self._figures.sums[metric.name])
        return self._figures.known[metric.name][place], units

    def _dealt(self) -> Dealt:
        """Hold the units of the arms against their weights."""
        one = self.experiment
        if self._figures is not None and one.sticky:
            what, units = "callers", self._figures.units
        elif one.sticky:
            return Dealt(state="unknown", told="callers can't be counted without kept answers (--dir)")
        elif one.bandit:
            if self._figures is None:
                return Dealt(state="unknown", told=self._problem or "nothing is known yet")
            what, units = "requests", self._figures.units
        else:
            what = "requests"
            units = [tuple(self.counts.pooled.arms.get(name, Done()).requests for name in one.arms)]
        stages = [(of, stage.weights) for of, stage in zip(units, one.stages, strict=False) if stage.weights]
        total = [sum(of[place] for of, _ in stages) for place in range(len(one.arms))]
        told = f"{' : '.join(f'{count:,}' for count in total)} {what}"
        if is_misdealt(stages):
            return Dealt(state="not as meant", told=f"{told}, which the weights don't explain")
        return Dealt(state="as meant", told=told)

    def _guards(self) -> tuple[Guarded, ...]:
        one = self.experiment
        risk = RISK / max(1, len(one.guards))
        return tuple(found for guard in one.guards for found in self._guarded(guard, risk))

    def _guarded(self, guard: Guard, risk: float) -> list[Guarded]:
        """Return what a guardrail says of each variant."""
        one, name = self.experiment, guard.metric.name
        if name in COUNTED:
            limits = Limits(**{name: guard.allowed})
            # The evidence shares its risk out among both questions; here each guardrail has its own.
            checks = {arm: self._check(arm, name, limits, 2 * risk / len(one.variants)) for arm in one.variants}
            states = {"bad": "broken", "good": "kept", "undecided": "undecided"}
            return [
                Guarded(metric=name, arm=arm, state=states[check.verdict], told=check.told())
                for arm, check in checks.items()
            ]
        found, _ = self._differences(guard.metric, risk)
        if not found:
            why = self._problem or "nothing is known yet"
            return [Guarded(metric=name, arm=arm, state="unknown", told=why) for arm in one.variants]
        return [_judged(guard, arm, apart) for arm, apart in found.items()]

    def _decision(self, found: Differences, dealt: Dealt) -> Decision | None:
        """Return who wins; None where what was dealt isn't what was meant."""
        if dealt.state == "not as meant":
            return None
        one = self.experiment
        return decide(found, one.metric.better, one.effect) if found else Decision("undecided")

    def _told(
        self, outcome: Outcome, decision: Decision | None, compared: Compared, found: Differences, dealt: Dealt
    ) -> tuple[str, int | None]:
        """Return the outcome in a line, and how many units are missing."""
        one, name = self.experiment, self.experiment.metric.name
        rows = {row.arm: row for row in compared.rows}
        if outcome == "invalid":
            what = f"arms got {dealt.told}: they are not alike, and no difference of theirs says anything"
            return f"not to be believed: {what}", None
        if outcome == "winner" and decision is not None:
            row = rows[decision.arm]
            rest = (
                f"; {', '.join(decision.others)} {_are(decision.others)} better than it, too" if decision.others else ""
            )
            return (
                f"{decision.arm} wins: {name} {signed(row.difference)} ({between(row)}) beside the control{rest}",
                None,
            )
        if outcome == "control":
            return f"the control wins: {name} is worse in {', '.join(one.variants)}", None
        if outcome == "equal":
            return f"no variant is better by {number(one.effect)} in {name}: the control stays", None
        if not found:
            return f"not decided: {compared.problem}", None
        more = [
            units_missing(apart, self._planned(one.arms.index(arm)), RISK / len(one.variants))
            for arm, apart in found.items()
            if gains(apart, one.metric.better)[1] > 0
        ]
        known = [count for count in more if count is not None and count <= 50 * one.units]
        if not known or one.metric.name in COUNTED or one.bandit:
            return "not decided yet", None
        unit = "callers" if one.sticky else "requests"
        return f"not decided yet: about {min(known):,} more {unit}, if the difference stays as it is", min(known)

    def _arms(self) -> tuple[ArmRow, ...]:
        one = self.experiment
        rows = []
        for place, name in enumerate(one.arms):
            done = self.counts.pooled.arms.get(name, Done())
            p99 = done.bound_above(BEYOND) * 1e3 if done.answered else None
            units = None if self._figures is None else sum(stage[place] for stage in self._figures.units)
            rows.append(ArmRow(
                name=name, version=one.versions[place], weight=one.weights_now[place], requests=done.requests,
                errors=done.errors, p99_ms=p99, units=units,
            ))  # fmt: skip
        return tuple(rows)


def _are(names: tuple[str, ...]) -> str:
    return "is" if len(names) == 1 else "are"


def _of_check(check: Check) -> Difference:
    """Return a comparison of counted events as a difference of means."""
    return Difference(
        check.share, check.stable_share, check.share - check.stable_share, check.low, check.high, 0.0, 0
    )  # fmt: skip


def _judged(guard: Guard, arm: str, found: Difference) -> Guarded:
    allowed = guard.allowed * abs(found.control) if guard.relative else guard.allowed
    low, _ = gains(found, guard.metric.better)
    told = f"{guard.metric.name}: {number(found.mean)} beside {number(found.control)}"
    if not math.isfinite(low):
        return Guarded(metric=guard.metric.name, arm=arm, state="undecided", told=f"{told}, too few yet")
    told += f", {signed(found.low)} to {signed(found.high)}; worse by {number(allowed)} is allowed"
    broken = is_breach(found, guard.metric.better, allowed)
    state = "broken" if broken else "kept" if low >= -allowed else "undecided"
    return Guarded(metric=guard.metric.name, arm=arm, state=state, told=told)
