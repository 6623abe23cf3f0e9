"""One turn of the controller for one autoscaler: the largest proposal of its metrics, held by its rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .behavior import Moment, Past, normalize, remember_change
from .calculator import NoMetricError, Pods, Proposal, Tolerances, of_average, of_request, of_total, of_value
from .flags import TOLERANCE, Flags
from .spec import Autoscaler, Metric, Rules

Seen = Mapping[Metric, Sequence[Pods] | int | None]
"""For each metric the pods with samples, or for Object and External a number in thousandths; None: no answer."""


@dataclass(frozen=True)
class Decision:
    """What one turn decided.

    Attributes:
        replicas: that are wanted from now on.
        limited_by: what held the number, in the controller's words; empty when no metric answered.
    """

    replicas: int
    limited_by: str


class Controller:
    """The controller's view of one autoscaler."""

    def __init__(self, autoscaler: Autoscaler, flags: Flags) -> None:
        self.autoscaler = autoscaler
        self.flags = flags
        self.past = Past()
        self._tolerances = Tolerances(self._tolerance(autoscaler.down), self._tolerance(autoscaler.up))

    def _tolerance(self, rules: Rules | None) -> float:
        if rules is None or rules.tolerance is None or self.flags.release < TOLERANCE:
            return self.flags.tolerance
        return rules.tolerance

    def turn(self, now: float, replicas: int, there: int, ready: int, seen: Seen) -> Decision:
        """Decide once.

        Args:
            now: in seconds.
            replicas: that are wanted now.
            there: pods that the Deployment has, as its status says.
            ready: of them that are running and ready.
            seen: what each metric says.
        """
        if not self.past.recommendations:
            self.past.recommendations.append(Moment(replicas, now))
        decision = self._decide(now, replicas, there, ready, seen)
        if decision.replicas != replicas:
            remember_change(self.autoscaler, self.past, replicas, decision.replicas, now)
        return decision

    def _decide(self, now: float, replicas: int, there: int, ready: int, seen: Seen) -> Decision:
        minimum, maximum = self.autoscaler.minimum, self.autoscaler.maximum
        if replicas == 0 and minimum != 0:
            return Decision(0, "ScalingDisabled")
        if replicas > maximum:
            return Decision(maximum, "TooManyReplicas")
        if replicas < minimum:
            return Decision(minimum, "TooFewReplicas")
        proposals = []
        for metric in self.autoscaler.metrics:
            try:
                proposals.append(self.propose(metric, now, replicas, there, ready, seen.get(metric)).replicas)
            except NoMetricError:
                continue
        lacking = len(proposals) < len(self.autoscaler.metrics)
        if not proposals or (lacking and not self.flags.old and max(proposals) < replicas):
            return Decision(replicas, "")
        step = normalize(self.autoscaler, self.flags, self.past, replicas, max(proposals), minimum, now)
        return Decision(step.replicas, step.limited_by)

    def propose(
        self, metric: Metric, now: float, replicas: int, there: int, ready: int, said: Sequence[Pods] | int | None
    ) -> Proposal:
        """Return what one metric asks for.

        Raises:
            NoMetricError: it says nothing.
        """
        if said is None:
            raise NoMetricError("no answer")
        if isinstance(said, int):
            if metric.form == "Value":
                return of_total(replicas, metric.target, said, ready, self._tolerances)
            return of_average(there, metric.target, said, self._tolerances)
        of_pods = of_request if metric.form == "Utilization" else of_value
        cpu = metric.kind in ("Resource", "ContainerResource") and metric.name == "cpu"
        return of_pods(replicas, metric.target, said, self._tolerances, cpu=cpu, now=now, flags=self.flags)
