"""What a model with steps takes: its callers' inputs, or its own tensors."""

from __future__ import annotations

from collections.abc import Iterable

from hone.signature import Signature
from hone.steps.base import ColumnSpec


class Offered(Signature):
    """The inputs that callers give and the answers that they get; a request may bring the model's own inputs, too.

    Attributes:
        model: the model's own signature; what such a request is answered by.
    """

    inputs: tuple[ColumnSpec, ...]
    model: Signature

    def taken_by(self, names: Iterable[str]) -> Signature:
        """Return the model's own signature for a request that names one of its inputs which callers needn't give."""
        own = {*self.model.input_names} - {*self.input_names}
        return self.model if any(name in own for name in names) else self

    @property
    def unnamed(self) -> Signature:
        """The signature of requests that don't name inputs: the model's own, unless that has the same names."""
        return self if {*self.model.input_names} == {*self.input_names} else self.model
