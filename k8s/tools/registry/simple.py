"""Signatures as cosign 1 and 2 write them: a payload that says the digest, under the tag `sha256-DIGEST.sig`.

https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hone import __version__

from .claims import Claim
from .client import OCI_MANIFEST, ImagePlace, Registry, as_json
from .keys import signature_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
TYPE = "cosign container image signature"
CONFIG = "application/vnd.oci.image.config.v1+json"
NEVER = "0001-01-01T00:00:00Z"


def tag_of(digest: str) -> str:
    """Return the tag under which an image's signatures lie."""
    return f"{digest.replace(':', '-')}.sig"


def claims(registry: Registry, digest: str) -> Iterator[Claim]:
    """Yield the signatures that an image has; raises as `Registry.ask` does."""
    for layer in _layers(registry, digest):
        payload = registry.blob(str(layer.get("digest")))
        annotations = layer.get("annotations")
        signature = annotations.get(SIGNATURE, "") if isinstance(annotations, dict) else ""
        yield Claim(_about(payload), payload, (str(signature),))


def add(registry: Registry, image: dict[str, Any], key: EllipticCurvePrivateKey) -> None:
    """Put a signature beside those that an image has already; raises as `Registry.ask` does.

    Args:
        image: its descriptor.
        key: to sign with.
    """
    digest = str(image["digest"])
    layers = _layers(registry, digest)
    payload = as_json(_payload(registry.place, digest))
    layer = registry.put(PAYLOAD, payload)
    layers.append({**layer, "annotations": {SIGNATURE: signature_of(payload, key)}})
    config = registry.put(CONFIG, as_json(_config([one["digest"] for one in layers])))
    registry.put_manifest(
        tag_of(digest), {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}
    )


def _layers(registry: Registry, digest: str) -> list[dict[str, Any]]:
    return [layer for layer in registry.layers(tag_of(digest)) if layer.get("mediaType") == PAYLOAD]


def _payload(place: ImagePlace, digest: str) -> dict[str, Any]:
    return {
        "critical": {
            "identity": {"docker-reference": f"{place.host}/{place.name}"},
            "image": {"docker-manifest-digest": digest},
            "type": TYPE,
        },
        "optional": {"creator": f"hone {__version__}"},
    }


def _about(payload: bytes) -> str:
    """Return the digest of the image that a payload is about."""
    try:
        critical = json.loads(payload)["critical"]
        return str(critical["image"]["docker-manifest-digest"]) if critical["type"] == TYPE else ""
    except (ValueError, KeyError, TypeError):
        return ""


def _config(digests: list[str]) -> dict[str, Any]:
    """Return the configuration that an image without files has, and a manifest must name."""
    history = [{"created": NEVER} for _ in digests]
    layers = {"type": "layers", "diff_ids": digests}
    return {"architecture": "", "created": NEVER, "history": history, "os": "", "rootfs": layers, "config": {}}
