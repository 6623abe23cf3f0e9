"""Beginning an experiment: everything is looked at before a request goes to a variant."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hone import store
from hone.errors import HoneError
from hone.services.arms.split import WHOLE
from hone.services.status.asking import Access
from hone.store.registry import ALIASES

from ..registry.history import entered
from ..rollout.state import rollout_of
from .counts import Counts
from .metrics import COUNTED, ExperimentError
from .replicas import Replicas
from .state import CONTROL, Experiment, Stage, experiment_of


def prepare(
    name: str,
    variants: Sequence[tuple[str, float]],
    urls: Sequence[str],
    access: Access,
    *,
    control: str = "",
    **fields: Any,
) -> Experiment:
    """Return an experiment that nobody has felt yet, and that is written nowhere.

    Args:
        name: of the model.
        variants: version, variant or alias of each, and its percent of the requests.
        urls: of the services.
        access: to them.
        control: as the variants; empty: what the first service answers with now.
        fields: others of `Experiment`.

    Raises:
        StoreError: no such version.
        ExperimentError: an experiment or a rollout is under way, or something asked for can't be.
        HoneError: the first service can't be reached.
    """
    _check_free(name)
    found = [(reference, _version(name, reference), weight) for reference, weight in variants]
    left = WHOLE - sum(weight for _, _, weight in found)
    if left <= 0 or any(weight <= 0 for _, _, weight in found):
        raise ExperimentError(f"{left:g} % of the requests are left for the control; each arm needs some")
    draft = Experiment(
        name=name, urls=tuple(urls), ca=str(access.ca.resolve()) if access.ca else "",
        arms=(CONTROL, *(reference for reference, _, _ in found)),
        versions=("", *(version for _, version, _ in found)),
        weights=(left, *(weight for _, _, weight in found)), **fields,
    )  # fmt: skip
    _check_figures(draft)
    first = next(iter(Replicas(draft, access).splits().values()))
    stable = _version(name, control) if control else first.answers()
    versions = (stable, *draft.versions[1:])
    if len(set(versions)) < len(versions):
        raise ExperimentError(f"two arms are one version: {', '.join(f'{name}:{version}' for version in versions)}")
    return draft.model_copy(update={"versions": versions})


def begin(experiment: Experiment, access: Access) -> tuple[Experiment, list[str]]:
    """Give every service the split; return the experiment, and the services that lose it when they start again.

    Whoever is killed in here leaves an experiment that is `starting`, which `end` ends.

    Raises:
        HoneError: a service doesn't take it; none has it then.
    """
    experiment = experiment.becoming(status="starting")
    try:
        with noted(experiment, f"{_weights(experiment)} of the requests"):
            lost = Replicas(experiment, access).begin()
    except HoneError as error:
        experiment.becoming(status="stopped", answer=CONTROL, told=f"it was not begun: {error}")
        raise
    now = time.time()
    begun = experiment.becoming(status="running", stages=(Stage(since=now, weights=experiment.weights),), seen_at=now)
    Counts(begun).evidence.begin(begun.weights)
    return begun, lost


@contextmanager
def noted(experiment: Experiment, what: str, to: str = "", evidence: Any = None) -> Iterator[None]:
    """Record a step in the registry's history before it is made, and what became of it.

    Args:
        to: arm that the requests go to; empty: they are shared out.
        evidence: plain values.
    """
    with entered("ab", experiment.tag(to or experiment.variants[0])) as details:
        details["from"] = experiment.tag(CONTROL)
        details["to"] = experiment.tag(to) if to else ", ".join(experiment.tag(arm) for arm in experiment.variants)
        details["reason"] = what + (f" ({experiment.reason})" if experiment.reason else "")
        details["evidence"] = json.dumps(evidence or [])
        yield


def _weights(experiment: Experiment) -> str:
    return ", ".join(f"{name} {weight:g} %" for name, weight in zip(experiment.arms, experiment.weights, strict=True))


def _version(name: str, reference: str) -> str:
    """Return the stored version that a word means: an alias, a variant or a version."""
    return store.resolve(f"{name}{'@' if reference in ALIASES else ':'}{reference}").version


def _check_free(name: str) -> None:
    before = experiment_of(name)
    if before is not None and not before.ended:
        message = f"an A/B test of '{name}' is {before.status}: one at a time; hone ab stop {name} ends it"
        raise ExperimentError(message)
    rollout = rollout_of(name)
    if rollout is not None and not rollout.ended:
        raise ExperimentError(f"a rollout of '{name}' is {rollout.status}; hone rollout abort {name} ends it")


def _check_figures(experiment: Experiment) -> None:
    """Raise ExperimentError for a metric that can't be had."""
    metrics = [*experiment.metrics, *(guard.metric for guard in experiment.guards)]
    kept = [metric.name for metric in metrics if metric.name not in COUNTED]
    if kept and not experiment.feedback:
        needs = f"{kept[0]} comes from kept answers"
        raise ExperimentError(f"{needs}: give --dir, the folder of HONE_FEEDBACK_DIR of the services")
    if experiment.feedback and not Path(experiment.feedback).is_dir():
        raise ExperimentError(f"{experiment.feedback}: no such folder; HONE_FEEDBACK_DIR of the services is meant")
    if experiment.metric.name in COUNTED and experiment.sticky:
        message = "callers are dealt, and a service's counts don't tell them apart; decide by latency or a figure"
        raise ExperimentError(f"{experiment.metric.name} with --sticky: {message}")
    if experiment.bandit and (experiment.sticky or experiment.metric.name in COUNTED):
        why = "--sticky keeps callers where they are" if experiment.sticky else f"{experiment.metric.name} is counted"
        raise ExperimentError(f"--bandit deals each request anew by the figures of kept answers, and {why}")
