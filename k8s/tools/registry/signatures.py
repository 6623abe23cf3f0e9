"""Signatures of images as cosign makes and reads them, with a key pair and without a transparency log.

ECDSA over P-256 and SHA-256 signs the digest of the image. What is signed lies in the image's own repository, in both
ways that cosign and the policies of clusters look for: `simple` and `bundles`.
"""

from __future__ import annotations

import urllib.error
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hone.errors import HoneError, one_line

from . import bundles, simple
from .client import ImagePlace, Registry, RegistryError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

WAYS = (simple, bundles)
NO_BUNDLES = (400, 404, 405, 415, 422)
"""How registries answer to a manifest with a subject when they know none."""


class SignatureError(HoneError):
    """An image without a signature of the key."""


def sign(image: str, digest: str, key: EllipticCurvePrivateKey) -> str:
    """Sign an image that a registry has, beside the signatures that it has already; return where that is.

    Where the key signed it before, nothing is written twice. No bundle is written where a registry takes none, nor
    where it would be the first beside signatures of others: cosign 3 looks at nothing else once there is one.

    Args:
        image: its name, with or without a tag.
        digest: under which the registry has it.
        key: to sign with.

    Raises:
        RegistryError: the registry can't be asked, or refuses.
    """
    registry = Registry(replace(ImagePlace.of(image), reference=digest))
    without = ""
    try:
        described = registry.described()
        if described["digest"] != digest:
            raise RegistryError(f"{registry.place.host} has something else under {digest[:19]}")
        there = {way: list(way.claims(registry, digest)) for way in WAYS}
        mine = {way: [claim.holds(digest, key.public_key()) for claim in claims] for way, claims in there.items()}
        if not any(mine[simple]):
            simple.add(registry, described, key)
        if not there[bundles] and not all(mine[simple]):
            without = "; not as a bundle, which would hide the signatures of others from cosign 3"
        elif not any(mine[bundles]):
            without = _bundled(registry, described, key)
    except urllib.error.HTTPError as error:
        raise RegistryError(f"{registry.place.host} answers {error.code} to the signature of {image}") from None
    except (urllib.error.URLError, OSError, ValueError) as error:
        why = one_line(getattr(error, "reason", None) or error)
        raise RegistryError(f"{registry.place.host} can't be given the signature of {image}: {why}") from None
    return f"{registry.place.host}/{registry.place.name}:{simple.tag_of(digest)}{without}"


def _bundled(registry: Registry, image: dict[str, Any], key: EllipticCurvePrivateKey) -> str:
    """Add a bundle; return what to say where the registry takes none."""
    try:
        bundles.add(registry, image, key)
    except urllib.error.HTTPError as error:
        if error.code not in NO_BUNDLES:
            raise
        return f"; not as a bundle, which this registry doesn't take: it answers {error.code}"
    return ""


def verify(image: str, key: EllipticCurvePublicKey) -> str:
    """Return the digest of an image that the key has signed.

    Raises:
        SignatureError: it has not, or signed something else.
        URLError, OSError, ValueError: the registry can't be asked; HTTPError: it refuses.
    """
    registry = Registry(ImagePlace.of(image))
    digest = registry.digest()
    signed = False
    for way in WAYS:
        for claim in way.claims(registry, digest):
            if claim.holds(digest, key):
                return digest
            signed = True
    if signed:
        raise SignatureError(f"{image} isn't signed by this key; a signature that it has is another's")
    raise SignatureError(f"{image} has no signature ({simple.tag_of(digest)}, or a bundle that refers to it)")
