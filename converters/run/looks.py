"""What the evaluation rows and a variant's answers look like: kept in its artifact, for traffic to be compared with."""

from __future__ import annotations

from dataclasses import dataclass

from hone.signature import Tensors
from hone.sketches.reference import FILE, make_references

from ..proof.subject import Subject


@dataclass(frozen=True)
class Looks:
    """Describes the rows that variants were judged by.

    Attributes:
        inputs: of the evaluation set, as the source takes them.
        private: rows must not leave the data.
    """

    inputs: Tensors
    private: bool

    def of(self, subject: Subject) -> dict[str, bytes]:
        """Return the file of a variant by its name; nothing where rows are too few or it has a file of that name."""
        signature = subject.artifact.signature
        if not signature.batchable or FILE in subject.artifact.manifest.files:
            return {}
        inputs = {spec.name: spec.fit(self.inputs[spec.name]) for spec in signature.inputs}
        # One that was stopped early has not answered all rows.
        rows = min(len(array) for array in inputs.values())
        outputs = {name: array for name, array in subject.outputs.items() if array.ndim and len(array) == rows}
        made = make_references(signature, inputs, outputs, private=self.private)
        return {FILE: made.model_dump_json().encode()} if made else {}
