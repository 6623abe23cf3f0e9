"""What an experiment compares, and what a variant may be worse by."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from hone.errors import HoneError, did_you_mean
from hone.services.arms.split import WHOLE

Better = Literal["higher", "lower"]

COUNTED = ("errors", "p99")
"""Metrics that services count by themselves; others come from answers that are kept, by request id."""
KEPT = ("latency", "accuracy", "absolute_error")
"""Metrics of kept answers that aren't figures which somebody sends."""
LOWER = (*COUNTED, "latency", "absolute_error")


class ExperimentError(HoneError):
    """An experiment that can't be begun, looked at or ended.

    Args:
        exit_code: 3 when a guardrail was broken, 4 when nothing is decided, else 1.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Closed(BaseModel):
    """Base of what the file holds: a field that isn't known is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Metric(Closed):
    """What is compared.

    Attributes:
        name: errors, p99, latency, accuracy, absolute_error, or a figure that callers post.
        better: higher or lower.
        zero: an answer without the figure counts as 0; else it doesn't count.
    """

    name: str
    better: Better
    zero: bool = False

    @property
    def is_figure(self) -> bool:
        return self.name not in (*COUNTED, *KEPT)


class Guard(Closed):
    """What a variant may be worse by; more than that, beyond doubt, and the experiment is ended.

    Attributes:
        metric: of it.
        allowed: in the metric's own unit, or where it is `relative` a share of the control's mean.
    """

    metric: Metric
    allowed: float = Field(ge=0)
    relative: bool = False


FIGURE = re.compile(r"[^\s=:,%]{1,100}")


def parse_metric(text: str, lower: Collection[str] = (), zero: Collection[str] = ()) -> Metric:
    """Return a metric by its name; what is better is known of all but figures, of which more is.

    Args:
        lower: figures of which less is better.
        zero: figures that are 0 where they are missing.

    Raises:
        ExperimentError: it is no name.
    """
    if not FIGURE.fullmatch(text):
        raise ExperimentError(f"'{text}' is no metric; give {', '.join((*COUNTED, *KEPT))} or a figure's name")
    return Metric(name=text, better="lower" if text in LOWER or text in lower else "higher", zero=text in zero)


def check_figures(named: Collection[str], metrics: Collection[Metric], option: str) -> None:
    """Raise ExperimentError for a name given to an option that isn't a figure of the experiment."""
    figures = [metric.name for metric in metrics if metric.is_figure]
    for name in named:
        if name not in figures:
            raise ExperimentError(f"{option} {name}: no figure of this test{did_you_mean(name, figures)}")


def parse_guard(text: str, lower: Collection[str] = (), zero: Collection[str] = ()) -> Guard:
    """Return a guardrail such as `errors=0.01` or `revenue=5%`; `parse_metric` has the others.

    Raises:
        ExperimentError: it is none.
    """
    name, _, allowed = text.partition("=")
    try:
        value = float(allowed.removesuffix("%"))
        assert 0 <= value < WHOLE**3
    except (ValueError, AssertionError):
        message = f"'{text}' is no guardrail; give METRIC=WORSE such as errors=0.01 or revenue=5%"
        raise ExperimentError(message) from None
    metric = parse_metric(name, lower, zero)
    relative = allowed.endswith("%")
    if relative and name in COUNTED:
        raise ExperimentError(f"{text}: of {name} a share of all requests is allowed, such as {name}=0.01")
    return Guard(metric=metric, allowed=value / WHOLE if relative else value, relative=relative)
