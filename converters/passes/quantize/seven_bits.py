"""Whether weights have seven bits: an option of every pass whose weights may have eight."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from hone.runtimes.onnx.saturation import NEEDS, host_saturates

from ...registry import PassOptions


class SevenBitOptions(PassOptions):
    """Options of a pass that multiplies int8 weights and activations."""

    reduce_range: bool | Literal["auto"] = Field(
        "auto",
        description="7-bit weights, for x86 processors without VNNI or AMX, which cut off sums of larger ones; auto: "
        "on such a processor.",
    )

    @property
    def fits(self) -> bool:
        """Whether two products of whole weights fit into the sums of any processor."""
        return False

    @property
    def seven_bits(self) -> bool:
        if self.reduce_range == "auto":
            return not self.fits and host_saturates()
        return self.reduce_range

    def decided_here(self) -> dict[str, Any]:
        return {"reduce_range": True} if self.reduce_range == "auto" and self.seven_bits else {}

    def requires(self) -> dict[str, str]:
        """Return what a host must have for the products to be right, as in `Manifest.requires`."""
        return {} if self.fits or self.seven_bits else NEEDS

    def told(self) -> dict[str, Any]:
        """Return what a report says of the choice."""
        return {"weight_bits": 7} if self.seven_bits else {}
