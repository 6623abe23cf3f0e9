"""Keys that images are signed with: ECDSA over P-256 in PEM files, as openssl and cosign write them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.errors import HoneError, UnavailableError

from .client import digest_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

MAKE = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out cosign.key"
COSIGNS_OWN = ("-----BEGIN ENCRYPTED COSIGN PRIVATE KEY-----", "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----")
MOST_WORK = 1 << 20
"""Of scrypt's N: cosign writes 2^16, which takes 64 MB; a file may not ask for all memory there is."""


def read_signing_key(file: Path, password: Callable[[], str]) -> EllipticCurvePrivateKey:
    """Return the private key in a PEM file: PKCS 8, also encrypted by openssl or by cosign, or SEC 1.

    Args:
        file: to read.
        password: asked for when the key is encrypted.

    Raises:
        HoneError: there is none, it is of another kind, or the password is wrong.
        UnavailableError: a package that reads it isn't installed.
    """
    serialization, ec = _cryptography()
    content = _content(file)
    try:
        if content.lstrip().startswith(tuple(mark.encode() for mark in COSIGNS_OWN)):
            key = serialization.load_der_private_key(_opened(content.decode(), password), None)
        else:
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


def signature_of(content: bytes, key: EllipticCurvePrivateKey) -> str:
    """Return a signature in base64."""
    _, ec = _cryptography()
    from cryptography.hazmat.primitives.hashes import SHA256

    return base64.b64encode(key.sign(content, ec.ECDSA(SHA256()))).decode()


def is_signed(content: bytes, signature: str, key: EllipticCurvePublicKey) -> bool:
    """Return whether a signature in base64 is of this content, by the key."""
    _, ec = _cryptography()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        key.verify(base64.b64decode(signature, validate=True), content, ec.ECDSA(SHA256()))
    except (InvalidSignature, binascii.Error):
        return False
    return True


def _opened(content: str, password: Callable[[], str]) -> bytes:
    """Return the key, in DER, that `cosign generate-key-pair` encrypted: scrypt makes the key of a NaCl secretbox.

    https://github.com/secure-systems-lab/go-securesystemslib/blob/main/encrypted/encrypted.go

    Raises:
        ValueError: it isn't that, or not this password.
        UnavailableError: PyNaCl isn't installed.
    """
    try:
        from nacl.exceptions import CryptoError
        from nacl.secret import SecretBox
    except ImportError:
        hint = "pip install 'hone[deploy]'"
        raise UnavailableError("a key that cosign encrypted needs the PyNaCl package", hint) from None
    try:
        box = json.loads(base64.b64decode("".join(content.strip().splitlines()[1:-1])))
        kdf, cipher = box["kdf"], box["cipher"]
        cost = {name.lower(): int(kdf["params"][name]) for name in ("N", "r", "p")}
        salt, nonce, sealed = (base64.b64decode(part) for part in (kdf["salt"], cipher["nonce"], box["ciphertext"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from None
    if kdf.get("name") != "scrypt" or cipher.get("name") != "nacl/secretbox" or max(cost.values()) > MOST_WORK:
        raise ValueError("encrypted in another way")
    memory = 128 * cost["r"] * (cost["n"] + cost["p"] + 2)
    secret = hashlib.scrypt(password().encode(), salt=salt, dklen=32, maxmem=memory, **cost)
    try:
        return SecretBox(secret).decrypt(sealed, nonce)
    except CryptoError as error:
        raise ValueError(str(error)) from None


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
