"""What must hold before a version becomes the champion; each gate is met, missed or undecided, and says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hone import store
from hone.describe.deployment import answers_here
from hone.errors import HoneError
from hone.hardware import host
from hone.recipe import LoadedRecipe, PromotionSpec
from hone.records import Verdict
from hone.store.trust import Policy, open_to_run

from ..drift.check import Question, check
from .comparison import Compared, compared

Name = Literal["proof", "golden", "callers", "champion", "latency", "size", "drift", "approval"]
WAIVABLE: tuple[Name, ...] = ("proof", "golden", "callers", "champion", "latency", "size", "drift")
"""All but the approval, which is a person's word already."""


@dataclass(frozen=True)
class Gate:
    """One thing that must hold.

    Attributes:
        name: of it.
        verdict: whether it does.
        detail: what was found.
        waived: it was let pass all the same.
    """

    name: Name
    verdict: Verdict
    detail: str
    waived: bool = False

    @property
    def passed(self) -> bool:
        return self.verdict == "met" or self.waived


@dataclass(frozen=True)
class Asked:
    """A promotion.

    Attributes:
        candidate: to be promoted.
        champion: what it would take the place of; None: there is none.
        loaded: the recipe whose metric and limits count; None: nothing is known of one.
        waived: gates that are let pass.
        approval: the reason of the person who approves; empty: nobody did.
        whole: the recipe was given, so all of its evaluation rows are asked, not those that are kept.
        sketches: folder that services write what they are asked to; None: they don't.
    """

    candidate: store.Entry
    champion: store.Entry | None
    loaded: LoadedRecipe | None
    waived: tuple[str, ...] = ()
    approval: str = ""
    whole: bool = False
    sketches: Path | None = None

    @property
    def terms(self) -> PromotionSpec:
        return self.loaded.recipe.promotion if self.loaded else PromotionSpec()


def gates(asked: Asked) -> list[Gate]:
    """Return every gate of a promotion, looked at on this host.

    Raises:
        ArtifactError: the candidate is corrupt, or may not run here.
    """
    open_to_run(asked.candidate, Policy.from_environment())
    found = [_proof(asked.candidate), _golden(asked.candidate)]
    if asked.champion is not None:
        found += _beside(asked, asked.champion)
    found += [_drift(asked.candidate, asked.sketches)] if asked.sketches else []
    found += [_approval(asked)] if asked.terms.approval else []
    return [_waived(gate, asked.waived) for gate in found]


def _waived(gate: Gate, waived: Sequence[str]) -> Gate:
    given = gate.name in waived and gate.verdict != "met"
    return Gate(gate.name, gate.verdict, gate.detail, waived=True) if given else gate


def _proof(candidate: store.Entry) -> Gate:
    """The verdict of its run: the bound of what it loses, and every other limit of the budget."""
    selection = candidate.opened(verify=False).manifest.selection
    if selection is None:
        return Gate("proof", "undecided", "it has no proof; hone optimize makes one")
    if selection.outcome != "met":
        return Gate("proof", selection.outcome, selection.reason or "its budget is not met")
    if selection.loss_upper is None or selection.confidence is None:
        return Gate("proof", "undecided", "its proof is of before there were bounds; optimize the model again")
    bound = f"loses at most {selection.loss_upper:.4g} at {selection.confidence:.0%} confidence"
    return Gate("proof", "met", f"{bound}, and meets its budget")


def _golden(candidate: store.Entry) -> Gate:
    processor = host()["cpu"]
    problem = store.host_problem(candidate)
    if problem:
        return Gate("golden", "undecided", f"this host can't run it: {problem}; promote it on one like its target")
    artifact = candidate.opened(verify=False)
    if artifact.manifest.golden is None:
        return Gate("golden", "undecided", "it has no golden rows; optimize the model again")
    found, wrong = answers_here(artifact)
    return Gate("golden", "missed" if wrong else "met", f"{found}, on {processor}")


def _beside(asked: Asked, champion: store.Entry) -> list[Gate]:
    """What must hold beside the champion; nothing is measured for gates that are waived all."""
    found = [_callers(asked.candidate, champion), _size(asked, champion)]
    if {"champion", "latency"} <= set(asked.waived):
        return [*found, *(Gate(name, "undecided", "not looked at") for name in ("champion", "latency"))]
    if found[0].verdict != "met":
        reason = "not compared: it takes or gives something else"
        return [*found, *(Gate(name, "undecided", reason) for name in ("champion", "latency"))]
    try:
        measured = compared(asked.candidate, champion, asked.loaded, whole=asked.whole)
    except HoneError as error:
        return [*found, *(Gate(name, "undecided", str(error)) for name in ("champion", "latency"))]
    return [*found, _champion(champion, measured), _latency(asked.terms.latency, measured)]


def _callers(candidate: store.Entry, champion: store.Entry) -> Gate:
    """Callers of the champion must be able to go on: the same inputs and outputs."""
    ours, theirs = (entry.opened(verify=False).signature for entry in (candidate, champion))
    for kind, mine, other in (("input", ours.inputs, theirs.inputs), ("output", ours.outputs, theirs.outputs)):
        here, there = ({spec.name: spec.describe() for spec in specs} for specs in (mine, other))
        if here != there:
            return Gate("callers", "missed", f"{kind}s are {_listed(here)}; the champion's are {_listed(there)}")
    return Gate("callers", "met", "the champion's inputs and outputs")


def _listed(specs: dict[str, str]) -> str:
    return ", ".join(f"{name} {words}" for name, words in specs.items())


def _size(asked: Asked, champion: store.Entry) -> Gate:
    ours, theirs = (entry.opened(verify=False).manifest.size_bytes for entry in (asked.candidate, champion))
    words = f"{ours / 1e6:.2f} MB, the champion's is {theirs / 1e6:.2f} MB"
    if asked.terms.size is None:
        return Gate("size", "met", words)
    limit = f"at most {asked.terms.size:g} times"
    return Gate("size", "met" if ours <= asked.terms.size * theirs else "missed", f"{words} ({limit})")


def _champion(champion: store.Entry, measured: Compared) -> Gate:
    ruling = measured.ruling
    if ruling.verdict != "met" or ruling.upper is None:
        return Gate("champion", ruling.verdict, f"{ruling.reason} ({measured.rows} rows, beside {champion.tag})")
    bound = f"loses at most {ruling.upper:.4g} against {champion.tag}, {ruling.allowed:.4g} is allowed"
    return Gate("champion", "met", f"{bound}; {measured.rows} rows, {ruling.confidence:.0%} confidence")


def _latency(limit: float | None, measured: Compared) -> Gate:
    low, middle, high = measured.ratio
    words = f"{middle:.3f} times the champion's time, between {low:.3f} and {high:.3f}"
    if limit is None:
        return Gate("latency", "met", words)
    verdict: Verdict = "met" if high <= limit else "missed" if low > limit else "undecided"
    return Gate("latency", verdict, f"{words} (at most {limit:g})")


def _drift(candidate: store.Entry, sketches: Path) -> Gate:
    """Whether the rows of its proof look like those that the model is asked now, whichever version answers them."""
    try:
        found = check(candidate.tag, sketches, Question(unserved=True))
    except HoneError as error:
        return Gate("drift", "undecided", str(error))
    if found.verdict == "missed":
        return Gate("drift", "missed", f"today's traffic isn't what it was proven on: {found.headline()}")
    if found.verdict == "undecided":
        return Gate("drift", "met", f"too little traffic was sketched lately to tell: {found.rows:,} rows")
    return Gate("drift", "met", f"traffic of {found.rows:,} rows looks like the rows of its proof")


def _approval(asked: Asked) -> Gate:
    if not asked.approval:
        return Gate("approval", "missed", "its recipe asks for a person's word: --approve with a --reason")
    return Gate("approval", "met", asked.approval)
