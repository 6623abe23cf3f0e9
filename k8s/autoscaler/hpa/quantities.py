"""Kubernetes' quantities ("1500m", "0.05", "2k", "1Gi") as thousandths, the unit in which its autoscaler counts."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal, InvalidOperation

from hone.errors import HoneError

DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
FORM = re.compile(r"^([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)([A-Za-z]*)$")


def to_milli(quantity: object, field: str) -> int:
    """Return a quantity in thousandths, rounded up as `resource.Quantity.MilliValue` does.

    Args:
        quantity: text or a number, as YAML gives it.
        field: where it stands, for the message.

    Raises:
        HoneError: it is not a quantity.
    """
    match = FORM.match(str(quantity)) if not isinstance(quantity, bool) else None
    try:
        if match is None:
            raise InvalidOperation
        number, suffix = Decimal(match[1]), match[2]
        scale = Decimal(2) ** BINARY[suffix] if suffix in BINARY else Decimal(10) ** DECIMAL[suffix]
    except (InvalidOperation, KeyError):
        raise HoneError(f"{field}: '{quantity}' is not a quantity, such as 500m or 32") from None
    return int((number * scale * 1000).to_integral_value(ROUND_CEILING))


def from_milli(value: int) -> str:
    """Return the quantity of so many thousandths, as short as it can be written."""
    return str(value // 1000) if value % 1000 == 0 else f"{value}m"
