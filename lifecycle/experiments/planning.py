"""How many callers or requests an A/B test takes, before it is begun."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hone.evidence.arms.power import Needed, units_needed
from hone.evidence.canary import RISK
from hone.records import Record
from hone.services.arms.split import WHOLE

from .metrics import ExperimentError, check_figures, parse_guard, parse_metric

GUARDS = ("errors=0.01", "p99=0.02")
"""Where none are asked for."""


class Plan(Record):
    """What a test takes.

    Attributes:
        baseline: mean of a unit's figure in the control.
        deviation: standard deviation of it.
        effect: smallest difference that is to be found.
        power: that it is found.
        confidence: that nothing is found that isn't there.
        units: callers or requests of all arms, of the test that may be looked at always.
        half: by when it is found in half of such tests.
        once: of a test that is looked at once, at its end.
        days, once_days: at the rate given; None: none is given.
    """

    baseline: float
    deviation: float
    effect: float
    power: float
    confidence: float
    units: int
    half: int
    once: int
    days: float | None = None
    once_days: float | None = None


UNITS = 10_000
"""That are planned where nothing is said: intervals are about as short as they can be from a third of them on."""


def plan(
    weights: Sequence[float], baseline: float, effect: str, deviation: float | None, power: float, rate: float | None
) -> Plan:
    """Return what a test takes.

    Args:
        weights: percent of each arm, the control first.
        baseline: mean of a unit's figure in the control.
        effect: difference of the means, or a part of the baseline such as `5%`.
        deviation: of a unit's figure; None: the figure is 0 or 1.
        rate: units a day.

    Raises:
        ExperimentError: the numbers are of nothing that there is.
    """
    apart = difference_of(effect, baseline)
    if not apart:
        raise ExperimentError("--effect is 0: no test finds that")
    if deviation is None:
        if not 0 < baseline < 1:
            message = f"a mean of {baseline:g} is no share: give the standard deviation of a unit's figure, --sd"
            raise ExperimentError(message)
        other = min(max(baseline + apart, 0.0), 1.0)
        spreads = (math.sqrt(baseline * (1 - baseline)), math.sqrt(other * (1 - other)))
    else:
        spreads = (deviation, deviation)
    deviations = (spreads[0], *(spreads[1] for _ in weights[1:]))
    shares = tuple(weight / WHOLE for weight in weights)
    found: Needed = units_needed(apart, deviations, shares, RISK, power)
    return Plan(
        baseline=baseline, deviation=spreads[0], effect=apart, power=power, confidence=1 - RISK, units=found.units,
        half=found.half, once=found.once, days=found.units / rate if rate else None,
        once_days=found.once / rate if rate else None,
    )  # fmt: skip


def difference_of(effect: str, baseline: float | None) -> float:
    """Return an effect in the metric's own unit.

    Raises:
        ExperimentError: it is no number, or a part of nothing.
    """
    try:
        value = float(effect.removesuffix("%"))
        assert math.isfinite(value) and value >= 0
    except (ValueError, AssertionError):
        raise ExperimentError(f"--effect: '{effect}' is no difference; give one such as 0.01 or 5%") from None
    if not effect.endswith("%"):
        return value
    if baseline is None:
        raise ExperimentError(f"--effect {effect} of what? Give --baseline, the mean that the control has now")
    return abs(baseline) * value / WHOLE


def fields_of(variants: Sequence[tuple[str, float]], options: Mapping[str, Any]) -> tuple[dict[str, Any], Plan | None]:
    """Return fields of an experiment from options of `hone ab start`, and what it takes, where that can be told.

    Raises:
        ExperimentError: a metric, a guardrail or the effect is none.
    """
    lower, zero = options["lower"], options["zero"]
    metric, *also = (parse_metric(name, lower, zero) for name in dict.fromkeys((options["metric"], *options["also"])))
    guards = tuple(parse_guard(text, lower, zero) for text in options["guards"] or GUARDS)
    figures = [metric, *also, *(guard.metric for guard in guards)]
    check_figures(lower, figures, "--lower")
    check_figures(zero, figures, "--zero")
    effect, baseline, units = options["effect"], options["baseline"], options["units"]
    found = None
    if effect and baseline is not None and units is None:
        left = WHOLE - sum(part for _, part in variants)
        if left <= 0:
            raise ExperimentError(f"{left:g} % of the requests are left for the control; each arm needs some")
        weights = (left, *(part for _, part in variants))
        found = plan(weights, baseline, effect, options["sd"], options["power"], options["rate"])
    key, feedback = options["record_key"], options["feedback"]
    fields = {
        "metric": metric, "also": tuple(also), "guards": guards,
        "effect": difference_of(effect, baseline) if effect else 0.0,
        "units": found.units if found is not None else units or UNITS,
        "sticky": options["sticky"], "feedback": str(feedback.resolve()) if feedback else "",
        "key_file": str(key.resolve()) if key else "", "output": options["output"], "wait_s": options["wait"],
        "lasts_s": options["lasts"], "bandit": options["bandit"], "reason": options["reason"],
    }  # fmt: skip
    return fields, found
