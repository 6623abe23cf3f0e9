"""Can the images be pulled: asked of their registries, as a node will, by the distribution specification of OCI."""

from __future__ import annotations

import urllib.error
from typing import TYPE_CHECKING, Any

from hone.errors import one_line
from hone.records import Finding

from ..cluster import containers
from ..registry.client import ImagePlace, Registry, RegistryError
from ..registry.signatures import SignatureError, verify

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

EXAMPLES = ("example.com", "example.org", "example.net")
"""Hosts that RFC 2606 keeps for documentation."""


def images(objects: list[dict[str, Any]], key: EllipticCurvePublicKey | None = None) -> list[Finding]:
    """Ask for the image of every container, and whether a key has signed it, where one is given."""
    names = sorted({container["image"] for item in objects for container in containers(item)})
    found = [pullable(name) for name in names]
    if key is None:
        return found
    there = [name for name, one in zip(names, found, strict=True) if one.state == "ok"]
    return [*found, *(signed(name, key) for name in there)]


def signed(image: str, key: EllipticCurvePublicKey) -> Finding:
    """Return whether a key has signed what an image's name means now."""
    remedy = "sign it: hone containerize MODEL --tag … --push --sign-key cosign.key"
    try:
        digest = verify(image, key)
    except SignatureError as error:
        return Finding("signature", "failed", str(error), remedy)
    except (RegistryError, OSError, ValueError) as error:
        return Finding(
            "signature", "unknown", f"{image}: {one_line(error)}", "ask again, or look at the registry's log"
        )
    moves = "" if "@" in image else "; by its tag, which may be moved: name the digest"
    return Finding("signature", "ok", f"{image} is signed, {digest[:19]}{moves}")


def pullable(image: str) -> Finding:
    """Return whether a registry has an image, and lets this host have it."""
    place = ImagePlace.of(image)
    if place.host.partition(":")[0].endswith(EXAMPLES):
        remedy = "name your image: hone k8s render --image-record, or `images` of the kustomization"
        return Finding("image", "missing", f"{image} is at an example's address", remedy)
    try:
        digest = Registry(place).digest()
    except urllib.error.HTTPError as error:
        return _refused(image, place, error.code)
    except (urllib.error.URLError, OSError, ValueError) as error:
        why = one_line(getattr(error, "reason", None) or error)
        remedy = "run it where the registry is reached; the nodes must reach it, too"
        return Finding("image", "unknown", f"{place.host} can't be asked from here: {why}", remedy)
    return Finding("image", "ok", f"{image} is there{f', {digest[:19]}' if digest else ''}")


def _refused(image: str, place: ImagePlace, status: int) -> Finding:
    if status == 404:
        remedy = "push it: hone containerize MODEL --tag … --push"
        return Finding("image", "missing", f"{place.host} has no {image}", remedy)
    if status in (401, 403):
        remedy = f"docker login {place.host}, and an imagePullSecret for the nodes"
        return Finding("image", "unknown", f"{place.host} wants credentials for {image}", remedy)
    return Finding("image", "unknown", f"{place.host} answers {status} for {image}", "ask again, or look at its log")
