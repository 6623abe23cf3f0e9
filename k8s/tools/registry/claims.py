"""What a signature says, whichever way it lies in a registry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .keys import is_signed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey


@dataclass(frozen=True)
class Claim:
    """That somebody signed an image.

    Args:
        digest: of the image that the signed bytes are about; empty when they are about something else.
        signed: the bytes that the signature covers.
        signatures: in base64, one for each key.
    """

    digest: str
    signed: bytes
    signatures: tuple[str, ...]

    def holds(self, digest: str, key: EllipticCurvePublicKey) -> bool:
        """Return whether the key signed this image: a signature can be copied to another one."""
        return self.digest == digest and any(is_signed(self.signed, one, key) for one in self.signatures)
