"""What a look at a model's traffic found, column by column."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from hone.records import Verdict

WORDS: dict[Verdict, str] = {"missed": "drift", "met": "no drift", "undecided": "undecided"}
"""Verdicts as they are said of drift."""
EXIT: dict[Verdict, int] = {"missed": 3, "met": 0, "undecided": 4}


@dataclass(frozen=True)
class Finding:
    """One column: how far its rows have moved, and what else is told of it.

    Attributes:
        column: `input.NAME[3]`, `output.NAME.class`, …
        group: its tensor, `input.NAME`.
        verdict: missed (drift), met (no drift) or undecided.
        effect, low, high: largest change of the share of rows in a set, 0 to 1, and its bounds.
        sure: lower bound with the confidence of all looks of a month.
        what: the set whose share changed most surely.
        before, after: share of rows in it, in the reference and now.
        rows: that were looked at; in `requests`.
        independent: rows that tell as much, where those of a request are alike.
        hours: that were looked at.
        history: the same change against the same hours of earlier weeks; None: there are too few rows.
        ks, total_variation, psi, wasserstein, chi_square, cramers_v: as seen, without bounds; None: not of this kind.
        missing, out_of_range: share of rows.
        new: categories that the reference doesn't have, the most frequent first.
        smallest: change that would have been called drift half of the time.
        needed: rows that would show a change of twice the threshold; None: the reference has too few itself.
    """

    column: str
    group: str
    verdict: Verdict
    effect: float
    low: float
    high: float
    sure: float
    what: str
    before: float
    after: float
    rows: int
    requests: int
    independent: int
    hours: int
    smallest: float
    needed: int | None
    history: float | None = None
    note: str = ""
    ks: float | None = None
    total_variation: float = 0.0
    psi: float = 0.0
    wasserstein: float | None = None
    chi_square: float | None = None
    cramers_v: float | None = None
    missing: float = 0.0
    out_of_range: float = 0.0
    new: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return in words what moved."""
        return f"rows {self.what} were {self.before:.1%}, are {self.after:.1%}"


@dataclass(frozen=True)
class Joint:
    """What a classifier found that tells recorded rows from those of the proof.

    Attributes:
        accuracy: on rows that it had not seen, both kinds weighing alike.
        low: lower bound of the total variation of all inputs together; how large it is at most, a classifier can't say.
        rows: recorded rows that it was given.
        verdict: missed (drift) or undecided.
    """

    accuracy: float
    low: float
    rows: int
    verdict: Verdict


@dataclass(frozen=True)
class Drift:
    """What was found of a model.

    Attributes:
        model: tag.
        checked: ISO 8601, UTC.
        first, last: hours that were looked at, ISO 8601.
        threshold: change that is drift.
        confidence: of the bounds of one column.
        budget: false alarms a month, at most.
        reference_rows: evaluation rows of the proof, which traffic is compared with.
        calibration_rows: that are kept beside those; 0: there are none, or the artifact is of before.
        findings: the most important first.
        problems: what couldn't be read.
    """

    model: str
    checked: str
    first: str
    last: str
    threshold: float
    confidence: float
    budget: float
    reference_rows: int
    rows: int
    findings: tuple[Finding, ...]
    joint: Joint | None = None
    problems: tuple[str, ...] = ()
    calibration_rows: int = 0
    shapes: dict[str, Any] = field(default_factory=dict)
    """Shares in each cell, before and now, of the columns that a page draws."""

    @property
    def verdict(self) -> Verdict:
        found = [one.verdict for one in self.findings]
        if self.joint is not None and self.joint.verdict == "missed":
            found.append("missed")
        if "missed" in found:
            return "missed"
        return "met" if found and all(one == "met" for one in found) else "undecided"

    @property
    def drifted(self) -> list[Finding]:
        return [one for one in self.findings if one.verdict == "missed"]

    def as_json(self) -> dict[str, Any]:
        content = asdict(self)
        content.pop("shapes")
        for one in content["findings"]:
            one["verdict"] = WORDS[one["verdict"]]
        if content["joint"]:
            content["joint"]["verdict"] = WORDS[content["joint"]["verdict"]]
        return {"model": self.model, "verdict": WORDS[self.verdict], **content}

    def headline(self) -> str:
        """Return the result in one line."""
        if not self.findings or not self.rows:
            return f"undecided: no traffic of {self.model} is sketched in this time"
        total = len(self.findings)
        if self.verdict == "missed":
            if not self.drifted:
                return "drift: all inputs together are told from the proof's rows, none alone is"
            worst = self.drifted[0]
            return f"drift in {len(self.drifted)} of {total} columns; {worst.column}: {worst.describe()}"
        if self.verdict == "met":
            return f"no drift: none of {total} columns has moved by {self.threshold:g} or more"
        thin = max(self.findings, key=lambda one: one.smallest)
        open_ones = [one for one in self.findings if one.verdict == "undecided"]
        if thin.independent < (thin.needed or 0):
            return (
                f"undecided, too thin: {thin.independent:,} rows of the {thin.needed:,} that would show a change of "
                f"{2 * self.threshold:g}; the smallest that would be seen is {thin.smallest:.2f}"
            )
        first = open_ones[0]
        return (
            f"undecided: {len(open_ones)} of {total} columns may have moved by {self.threshold:g} or not; "
            f"{first.column}: {first.effect:.2f}, {first.low:.2f} to {first.high:.2f}"
        )
