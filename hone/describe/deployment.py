"""What a deployment of a stored model to this host would meet: the proof's host beside this one, and the answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hone import runtimes, store
from hone.artifact import Artifact
from hone.errors import HoneError
from hone.golden.check import check_rows
from hone.golden.rows import read_rows
from hone.hardware import cores, host
from hone.hardware.differences import differences
from hone.steps.ready import ready_steps
from hone.store.trust import Policy, open_to_run

BATCH = 16
BUDGET_S = 10.0
"""For all golden rows: nobody waits for an answer meanwhile."""


@dataclass(frozen=True)
class Prospect:
    """A variant on this host.

    Attributes:
        tag: of the variant.
        problem: why it can't run here, or why it would be refused; empty: it can be served.
        lines: (what, in words) about it.
        wrong: it runs, and gives other answers than in its proof.
    """

    tag: str
    problem: str
    lines: tuple[tuple[str, str], ...]
    wrong: bool = False


def prospects(reference: str) -> list[Prospect]:
    """Return what would become here of each variant that a reference may stand for, best first.

    Raises:
        StoreError: nothing answers to the reference.
    """
    return [_prospect(entry) for entry in store.serving_set(reference)]


def _prospect(entry: store.Entry) -> Prospect:
    if entry.artifact is None:
        return Prospect(entry.tag, entry.error, ())
    manifest = entry.artifact.manifest
    lines = []
    if manifest.measurements is not None:
        proof, here = manifest.measurements.host, {**host(), "runtime": runtimes.version_here(manifest.runtime)}
        lines.append(("proven on", describe(proof)))
        lines.append(("this host", "; ".join(differences(proof, here)) or "the same in all that matters"))
    if manifest.requires:
        lines.append(("requires", "; ".join(f"{name} {wanted}" for name, wanted in manifest.requires.items())))
    problem = store.host_problem(entry)
    if problem:
        return Prospect(entry.tag, problem, tuple(lines))
    try:
        answers, wrong = answers_here(open_to_run(entry, Policy.from_environment()))
    except HoneError as error:
        return Prospect(entry.tag, str(error), tuple(lines))
    lines.append(("answers", answers))
    return Prospect(entry.tag, answers if wrong else "", tuple(lines), wrong)


def answers_here(artifact: Artifact) -> tuple[str, bool]:
    """Return what became of the golden rows here, and whether the answers are wrong."""
    golden = artifact.manifest.golden
    if golden is None:
        return "it has no golden rows: nothing tells whether it answers here as in its proof", False
    rows = read_rows(artifact.path, golden, artifact.signature)
    steps = ready_steps(artifact)
    runtime = runtimes.load(artifact, cores())
    try:
        checked = check_rows(rows, golden, runtime.run, BATCH, BUDGET_S, steps)
    finally:
        runtime.close()
    return checked.describe(), not checked.match


def describe(facts: Mapping[str, Any]) -> str:
    """Return a host's facts in one line."""
    features = ", ".join(facts.get("cpu_features") or ()) or "no known instructions"
    known = [facts.get("cpu"), f"{facts.get('cores', '?')} cores", features, facts.get("gpu"), facts.get("runtime")]
    return ", ".join(str(fact) for fact in known if fact)
