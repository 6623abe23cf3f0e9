"""What arms have done in all services together, over their restarts: totals that only grow.

A service counts from its start. Its counts are added to what was known of it before as soon as one of them is smaller
than it was, which is how Prometheus reads counters. What it counted between the last look and its end is lost; as
much of every arm as it was dealt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hone.files import locked
from hone.services.arms.counts import Done
from hone.services.arms.evidence import Evidence
from hone.services.arms.split import Arm, Split

from .metrics import ExperimentError
from .state import Experiment, folder_of, write

FILE = "seen.json"


@dataclass
class Pooled:
    """Totals of the arms, as `Evidence` asks for them.

    Attributes:
        arms: by name.
    """

    arms: dict[str, Done] = field(default_factory=dict)

    def total(self, split: Split) -> dict[str, Done]:
        return self.arms

    def processes(self, split: Split) -> dict[str, int]:
        """Return nothing: every service serves every arm."""
        return {}


@dataclass
class Counts:
    """The counts of an experiment.

    Args:
        experiment: whose they are.
    """

    experiment: Experiment

    def __post_init__(self) -> None:
        one = self.experiment
        arms = tuple(
            Arm(name=name, version=version, weight=weight)
            for name, version, weight in zip(one.arms, one.versions, one.weights, strict=True)
        )
        self.pooled = Pooled({name: Done() for name in one.arms})
        split = Split(model=one.name, arms=arms, id=one.id)
        self.evidence = Evidence(folder_of(one.name), split, self.pooled)

    def take(self, seen: Mapping[str, Mapping[str, Any]]) -> None:
        """Add what services say to what is known.

        Args:
            seen: by address, what each arm has done there by its name; services that say nothing are left out.

        Raises:
            ExperimentError: what is known can't be read or written.
        """
        place = folder_of(self.experiment.name)
        try:
            place.mkdir(parents=True, exist_ok=True)
            with locked(place / "seen.lock"):
                known = self._read()
                for url, arms in seen.items():
                    known[url] = _grown(known.get(url, {}), arms)
                write(self.experiment.name, FILE, json.dumps({"id": self.experiment.id, "services": known}))
        except OSError as error:
            raise ExperimentError(f"{place}: {error.strerror}") from None
        for name in self.experiment.arms:
            total = Done()
            for arms in known.values():
                for part in ("before", "now"):
                    if name in arms:
                        total = total.plus(arms[name][part])
            self.pooled.arms[name] = total

    def _read(self) -> dict[str, Any]:
        file = folder_of(self.experiment.name) / FILE
        try:
            content = json.loads(file.read_bytes())
            return dict(content["services"]) if content["id"] == self.experiment.id else {}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError):
            raise ExperimentError(f"{file}: holds no counts; remove it, and counting begins anew") from None


def _grown(known: Mapping[str, Any], arms: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of a service's arms after a look at them."""
    nothing = Done().plain()
    parts = {name: {"before": nothing, "now": nothing, **known.get(name, {})} for name in arms}
    if any(len(one.get("bins", ())) != len(nothing["bins"]) for one in arms.values()):
        raise ExperimentError("a service counts latencies in another way; all need the same version of Hone")
    now = {name: {field: one[field] for field in nothing} for name, one in arms.items()}
    began_anew = any(_is_smaller(now[name], parts[name]["now"]) for name in arms)
    grown = {}
    for name, part in parts.items():
        before = Done().plus(part["before"]).plus(part["now"]).plain() if began_anew else part["before"]
        grown[name] = {"before": before, "now": now[name]}
    return grown


def _is_smaller(now: Mapping[str, Any], last: Mapping[str, Any]) -> bool:
    pairs = [(now[name], last[name]) for name in ("requests", "errors")]
    return any(one < other for one, other in [*pairs, *zip(now["bins"], last["bins"], strict=True)])
