"""Signatures as cosign 3 writes them: a Sigstore bundle that refers to the image.

In the bundle lies an in-toto statement whose subject is the image, in an envelope of DSSE. The bundle is found by the
referrers of the image, which a registry lists, or by the list that lies under the tag `sha256-DIGEST` where it can't.
https://docs.sigstore.dev/about/bundle · https://github.com/secure-systems-lab/dsse/blob/master/protocol.md
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .claims import Claim
from .client import OCI_MANIFEST, Registry, as_json
from .keys import fingerprint, signature_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

ANY_BUNDLE = "application/vnd.dev.sigstore.bundle"
BUNDLE = f"{ANY_BUNDLE}.v0.3+json"
EMPTY = "application/vnd.oci.empty.v1+json"
IN_TOTO = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
SIGNED = "https://sigstore.dev/cosign/sign/v1"
"""What the statement says of the image: that it is signed, nothing more. Attestations are bundles, too."""


def claims(registry: Registry, digest: str) -> Iterator[Claim]:
    """Yield the signatures that an image has; raises as `Registry.ask` does."""
    for one in registry.referrers(digest):
        # cosign names its bundles by the type of their empty configuration where it keeps the list itself.
        if not str(one.get("artifactType")).startswith((ANY_BUNDLE, EMPTY)):
            continue
        for layer in registry.layers(str(one.get("digest"))):
            if str(layer.get("mediaType")).startswith(ANY_BUNDLE):
                yield from _read(registry.blob(str(layer.get("digest"))))


def add(registry: Registry, image: dict[str, Any], key: EllipticCurvePrivateKey) -> None:
    """Let a bundle refer to an image; raises as `Registry.ask` does.

    Args:
        image: its descriptor.
        key: to sign with.
    """
    layer = registry.put(BUNDLE, as_json(_bundle(str(image["digest"]), key)))
    content = {"dev.sigstore.bundle.content": "dsse-envelope", "dev.sigstore.bundle.predicateType": SIGNED}
    registry.refer(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": BUNDLE,
            "config": registry.put(EMPTY, b"{}"),
            "layers": [layer],
            "subject": image,
            "annotations": content,
        }
    )


def _bundle(digest: str, key: EllipticCurvePrivateKey) -> dict[str, Any]:
    kind, _, value = digest.partition(":")
    subject = {"digest": {kind: value}, "annotations": {}}
    statement = as_json({"_type": STATEMENT, "subject": [subject], "predicateType": SIGNED, "predicate": {}})
    hint = base64.b64encode(bytes.fromhex(fingerprint(key.public_key()))).decode()
    return {
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": hint}},
        "dsseEnvelope": {
            "payload": base64.b64encode(statement).decode(),
            "payloadType": IN_TOTO,
            "signatures": [{"sig": signature_of(_covered(IN_TOTO, statement), key)}],
        },
    }


def _read(bundle: bytes) -> Iterator[Claim]:
    """Yield what a bundle says; nothing when it says something else, or nonsense."""
    try:
        envelope = json.loads(bundle)["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        statement = json.loads(payload)
        if (envelope["payloadType"], statement["predicateType"]) != (IN_TOTO, SIGNED):
            return
        (subject,) = statement["subject"]
        ((kind, value),) = subject["digest"].items()
        signatures = tuple(str(mark["sig"]) for mark in envelope["signatures"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return
    yield Claim(f"{kind}:{value}", _covered(IN_TOTO, payload), signatures)


def _covered(kind: str, payload: bytes) -> bytes:
    """Return what a signature of DSSE covers."""
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
