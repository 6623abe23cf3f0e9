"""Signatures of images as cosign makes and reads them, with a key pair and without a transparency log.

The payload says the digest of the image, ECDSA over P-256 and SHA-256 signs it, and both lie in the image's own
repository under the tag `sha256-DIGEST.sig`, so that `cosign verify --key` and policies of clusters find them.
https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md
"""

from __future__ import annotations

import base64
import binascii
import json
import urllib.error
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone import __version__
from hone.errors import HoneError, UnavailableError, one_line

from .client import OCI_MANIFEST, ImagePlace, Registry, RegistryError, as_json, digest_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
TYPE = "cosign container image signature"
CONFIG = "application/vnd.oci.image.config.v1+json"
NEVER = "0001-01-01T00:00:00Z"
MAKE = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out cosign.key"
COSIGNS_OWN = (b"ENCRYPTED COSIGN PRIVATE KEY", b"ENCRYPTED SIGSTORE PRIVATE KEY")


class SignatureError(HoneError):
    """An image without a signature of the key."""


def read_signing_key(file: Path, password: Callable[[], str]) -> EllipticCurvePrivateKey:
    """Return the private key in a PEM file: PKCS 8, also encrypted by openssl, or SEC 1.

    Args:
        file: to read.
        password: asked for when the key is encrypted.

    Raises:
        HoneError: there is none, it is of another kind, or the password is wrong.
    """
    serialization, ec = _cryptography()
    content = _content(file)
    if any(kind in content for kind in COSIGNS_OWN):
        raise HoneError(f"{file}: is encrypted in cosign's own way; make a key with: {MAKE}, which cosign reads, too")
    try:
        try:
            key = serialization.load_pem_private_key(content, None)
        except TypeError:  # it is encrypted
            key = serialization.load_pem_private_key(content, password().encode())
    except ValueError:
        raise HoneError(f"{file}: no private key in PEM, or not this password; make one with: {MAKE}") from None
    found: EllipticCurvePrivateKey = _of_p256(key, ec.EllipticCurvePrivateKey, file)
    return found


def read_verifying_key(file: Path) -> EllipticCurvePublicKey:
    """Return the public key in a PEM file; raises HoneError when there is none, or one of another kind."""
    serialization, ec = _cryptography()
    try:
        key = serialization.load_pem_public_key(_content(file))
    except ValueError:
        raise HoneError(f"{file}: no public key in PEM; openssl pkey -in cosign.key -pubout -out cosign.pub") from None
    found: EllipticCurvePublicKey = _of_p256(key, ec.EllipticCurvePublicKey, file)
    return found


def fingerprint(key: EllipticCurvePublicKey) -> str:
    """Return the sha256 of a public key as it stands in a certificate (DER), as hex."""
    serialization, _ = _cryptography()
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    return digest_of(key.public_bytes(serialization.Encoding.DER, kind)).partition(":")[2]


def sign(image: str, digest: str, key: EllipticCurvePrivateKey) -> str:
    """Sign an image that a registry has, beside the signatures that it has already; return where that is.

    Args:
        image: its name, with or without a tag.
        digest: under which the registry has it.
        key: to sign with.

    Raises:
        RegistryError: the registry can't be asked, or refuses.
    """
    _, ec = _cryptography()
    from cryptography.hazmat.primitives.hashes import SHA256

    registry = Registry(replace(ImagePlace.of(image), reference=digest))
    payload = as_json(_payload(registry.place, digest))
    signature = base64.b64encode(key.sign(payload, ec.ECDSA(SHA256()))).decode()
    try:
        layers = _layers(registry, digest)
        layer = {"mediaType": PAYLOAD, "size": len(payload), "digest": registry.put_blob(payload)}
        layers.append({**layer, "annotations": {SIGNATURE: signature}})
        config = as_json(_config([one["digest"] for one in layers]))
        described = {"mediaType": CONFIG, "size": len(config), "digest": registry.put_blob(config)}
        manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described, "layers": layers}
        registry.put_manifest(tag_of(digest), manifest)
    except urllib.error.HTTPError as error:
        raise RegistryError(f"{registry.place.host} answers {error.code} to the signature of {image}") from None
    except (urllib.error.URLError, OSError, ValueError) as error:
        why = one_line(getattr(error, "reason", None) or error)
        raise RegistryError(f"{registry.place.host} can't be given the signature of {image}: {why}") from None
    return f"{registry.place.host}/{registry.place.name}:{tag_of(digest)}"


def verify(image: str, key: EllipticCurvePublicKey) -> str:
    """Return the digest of an image that the key has signed.

    Raises:
        SignatureError: it has not, or signed something else.
        URLError, OSError, ValueError: the registry can't be asked; HTTPError: it refuses.
    """
    registry = Registry(ImagePlace.of(image))
    digest = registry.digest()
    layers = _layers(registry, digest)
    if not layers:
        raise SignatureError(f"{image} has no signature ({tag_of(digest)})")
    for layer in layers:
        payload = registry.blob(str(layer["digest"]))
        if _is_signed(payload, str(layer.get("annotations", {}).get(SIGNATURE, "")), key) and _is_of(payload, digest):
            return digest
    raise SignatureError(f"{image} isn't signed by this key; signatures of others: {len(layers)}")


def tag_of(digest: str) -> str:
    """Return the tag under which an image's signatures lie."""
    return f"{digest.replace(':', '-')}.sig"


def _layers(registry: Registry, digest: str) -> list[dict[str, Any]]:
    """Return the signatures that an image has."""
    layers = (registry.manifest(tag_of(digest)) or {}).get("layers", [])
    return [layer for layer in layers if isinstance(layer, dict) and layer.get("mediaType") == PAYLOAD]


def _payload(place: ImagePlace, digest: str) -> dict[str, Any]:
    return {
        "critical": {
            "identity": {"docker-reference": f"{place.host}/{place.name}"},
            "image": {"docker-manifest-digest": digest},
            "type": TYPE,
        },
        "optional": {"creator": f"hone {__version__}"},
    }


def _config(digests: list[str]) -> dict[str, Any]:
    """Return the configuration that an image without files has, and a manifest must name."""
    history = [{"created": NEVER} for _ in digests]
    layers = {"type": "layers", "diff_ids": digests}
    return {"architecture": "", "created": NEVER, "history": history, "os": "", "rootfs": layers, "config": {}}


def _is_signed(payload: bytes, signature: str, key: EllipticCurvePublicKey) -> bool:
    _, ec = _cryptography()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        key.verify(base64.b64decode(signature, validate=True), payload, ec.ECDSA(SHA256()))
    except (InvalidSignature, binascii.Error):
        return False
    return True


def _is_of(payload: bytes, digest: str) -> bool:
    """Return whether a payload that is signed is about an image: a signature can be copied to another one."""
    try:
        critical = json.loads(payload)["critical"]
        return bool(critical["image"]["docker-manifest-digest"] == digest and critical["type"] == TYPE)
    except (ValueError, KeyError, TypeError):
        return False


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise HoneError(f"{file}: cannot be read: {error.strerror}") from None


def _of_p256(key: Any, kind: type, file: Path) -> Any:
    if not isinstance(key, kind) or key.curve.name != "secp256r1":  # type: ignore[attr-defined]
        raise HoneError(f"{file}: not a key of ECDSA P-256; make one with: {MAKE}")
    return key


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        raise UnavailableError("signatures need the cryptography package", "pip install 'hone[ops]'") from None
    return serialization, ec
