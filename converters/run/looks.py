"""What a run's rows and a variant's answers look like: kept in its artifact, for traffic to be compared with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hone.data import read_dataset
from hone.evidence.shifts import Change, Counted, largest_change
from hone.signature import Signature, Tensors
from hone.sketches.reference import FILE, References, make_references, with_calibration

from ..proof.subject import Subject

DIFFERENT = 0.1
"""Change of a share of rows from which calibration rows are said to differ: what `hone drift` calls drift."""
DOUBT = 0.01
"""That any column is said to differ by chance."""
NAMED = 3


@dataclass(frozen=True)
class Looks:
    """Describes the rows that variants were judged by, and beside them those that int8 ranges come from.

    Attributes:
        inputs: of the evaluation set, as the source takes them.
        calibration: of the calibration set; None: there is none.
        private: rows must not leave the data.
    """

    inputs: Tensors
    calibration: Tensors | None
    private: bool

    def of(self, subject: Subject) -> dict[str, bytes]:
        """Return the file of a variant by its name; nothing where rows are too few or it has a file of that name."""
        signature = subject.artifact.signature
        if not signature.batchable or FILE in subject.artifact.manifest.files:
            return {}
        # One that was stopped early has not answered all rows.
        rows = min(len(array) for array in self.inputs.values())
        outputs = {name: array for name, array in subject.outputs.items() if array.ndim and len(array) == rows}
        made = self._references(signature, outputs)
        return {FILE: made.model_dump_json().encode()} if made else {}

    def unlike(self, signature: Signature) -> str:
        """Return where calibration rows differ from evaluation rows beyond doubt; empty where they don't."""
        made = self._references(signature, {}) if signature.batchable and self.calibration is not None else None
        if made is None:
            return ""
        total = sum(len(one.sets()[1]) for one in made.columns)
        found: list[tuple[Change, str]] = []
        for one in made.columns:
            (sets, words), (known, other) = one.sets(), (one.counts, one.calibration)
            counted = [Counted(np.array(counts, float)) for counts in (other, known)]
            change = largest_change(counted[0], counted[1], sets, DOUBT / (2 * total), DOUBT / (2 * total))
            if change.low > DIFFERENT:
                found.append((change, f"{one.column.name} (rows {words[change.where]}: {change.signed:+.0%})"))
        if not found:
            return ""
        found.sort(key=lambda pair: -pair[0].low)
        named, more = [words for _, words in found[:NAMED]], len(found) - NAMED
        return (
            f"the calibration rows differ from the evaluation rows in {', '.join(named)}"
            f"{f' and {more} more columns' if more > 0 else ''}: int8 ranges come from the former, the proof is of the "
            "latter; traffic is compared with the evaluation rows"
        )

    def _references(self, signature: Signature, outputs: Tensors) -> References | None:
        made = make_references(signature, _fitted(signature, self.inputs), outputs, private=self.private)
        if made is None or self.calibration is None:
            return made
        return with_calibration(made, _fitted(signature, self.calibration))


def looks_at(inputs: Tensors, calibration: Path | None, *, real: bool) -> Looks:
    """Return what describes a run's rows.

    Args:
        inputs: of the evaluation set.
        calibration: file of the calibration set.
        real: rows may leave the data.
    """
    return Looks(inputs, None if calibration is None else read_dataset(calibration).inputs, private=not real)


def _fitted(signature: Signature, inputs: Tensors) -> Tensors:
    return {spec.name: spec.fit(inputs[spec.name]) for spec in signature.inputs}
