"""Signatures of stored artifacts: Ed25519 over the manifest, the name and the version.

The manifest holds the hash of every file and everything else that decides what is computed, so its hash stands for the
artifact; name and version are signed beside it, so that an old version can't be passed off as a new one. The envelope
is DSSE, as in-toto and Sigstore use it. Keys are PEM files that openssl makes; nothing is asked of a network.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from hone.artifact import MANIFEST, SIGNATURE
from hone.errors import HoneError, UnavailableError, one_line
from hone.files import atomic_write, hash_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PAYLOAD_TYPE = "application/vnd.hone.artifact+json"
LARGEST = 1_000_000
State = Literal["unsigned", "signed", "stranger", "broken"]


class Statement(BaseModel):
    """What is signed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    manifest: str


class _Mark(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    keyid: str = ""
    key: str
    sig: str


class _Envelope(BaseModel):
    """DSSE, with each signer's public key beside the signature: it says who, not that he is trusted."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    payload: str
    payloadType: str  # noqa: N815 - DSSE's spelling
    signatures: tuple[_Mark, ...]


@dataclass(frozen=True)
class Keys:
    """Public keys that are trusted, by their raw bytes: the name of the file each is in."""

    names: Mapping[bytes, str] = field(default_factory=dict)

    @classmethod
    def read(cls, place: str) -> Keys:
        """Read a PEM file, or every .pem and .pub file of a folder; an empty place has no keys.

        Raises:
            HoneError: nothing is there, or a file holds no Ed25519 public key.
        """
        if not place:
            return cls()
        path = Path(place).expanduser()
        files = sorted(file for file in path.iterdir() if file.suffix in (".pem", ".pub")) if path.is_dir() else [path]
        if not files:
            raise HoneError(f"{path}: no .pem or .pub file in it, so no signature could be trusted")
        return cls({_public_key(file): file.stem for file in files})

    def __bool__(self) -> bool:
        return bool(self.names)

    def describe(self) -> str:
        return ", ".join(sorted(set(self.names.values())))


@dataclass(frozen=True)
class Standing:
    """What an artifact's signature is worth.

    Attributes:
        state: unsigned; signed by a trusted key; by a stranger, whose key is none of those; or broken.
        signer: the name of the trusted key's file, or a stranger's fingerprint.
        reason: why it is broken.
    """

    state: State
    signer: str = ""
    reason: str = ""

    def describe(self) -> str:
        if self.state == "signed":
            return f"signed by {self.signer}"
        if self.state == "stranger":
            return f"signed by unknown key {self.signer}"
        return f"signature broken: {self.reason}" if self.state == "broken" else "unsigned"


def sign(folder: Path, name: str, version: str, key: Path, password: Callable[[], str]) -> str:
    """Sign a stored artifact, beside the signatures of others that still hold; return the key's fingerprint.

    Args:
        folder: the artifact's.
        name, version: its tag.
        key: a PEM file with an Ed25519 private key.
        password: asked for when the key is encrypted.

    Raises:
        HoneError: the key can't be read, or is of another kind.
    """
    private = _private_key(key, password)
    public = _raw(private.public_key())
    payload = _payload(folder / MANIFEST, name, version)
    mark = _Mark(keyid=fingerprint(public), key=_encode(public), sig=_encode(private.sign(_signed_bytes(payload))))
    others: tuple[_Mark, ...] = ()
    if standing(folder, name, version, Keys()).state == "stranger":
        others = tuple(m for m in _read(folder / SIGNATURE).signatures if m.key != mark.key)
    envelope = _Envelope(payload=_encode(payload), payloadType=PAYLOAD_TYPE, signatures=(*others, mark))
    atomic_write(folder / SIGNATURE, envelope.model_dump_json(indent=2) + "\n")
    return mark.keyid


def standing(folder: Path, name: str, version: str, keys: Keys) -> Standing:
    """Return what the signature of a stored artifact is worth to someone who trusts some keys."""
    try:
        content = (folder / SIGNATURE).read_bytes() if (folder / SIGNATURE).is_file() else None
        return standing_of(content, hash_file(folder / MANIFEST), name, version, keys)
    except OSError as error:
        return Standing("broken", reason=f"{error.filename}: {error.strerror}")


def standing_of(content: bytes | None, manifest: str, name: str, version: str, keys: Keys) -> Standing:
    """As `standing`, of an artifact that isn't in the store.

    Args:
        content: of SIGNATURE, where there is one.
        manifest: the sha256 of MANIFEST.
        name, version: the tag that the artifact is to have.
        keys: that are trusted.

    Raises:
        UnavailableError: there are keys and a signature, and the cryptography package isn't installed.
    """
    if content is None:
        return Standing("unsigned")
    if not keys and not find_spec("cryptography"):
        return Standing("stranger", "that isn't checked: the cryptography package is not installed")
    try:
        envelope = _parse(content)
        payload = _decode(envelope.payload)
        signers = [_verified(mark, _signed_bytes(payload)) for mark in envelope.signatures]
        statement = Statement.model_validate_json(payload)
    except (ValidationError, ValueError) as error:
        return Standing("broken", reason=f"{SIGNATURE} can't be read: {one_line(error)}")
    problem = _mismatch(statement, manifest, name, version)
    if problem or None in signers or not signers or envelope.payloadType != PAYLOAD_TYPE:
        return Standing("broken", reason=problem or "it was not made by the key it names")
    sound = [signer for signer in signers if signer is not None]
    trusted = next((signer for signer in sound if signer in keys.names), None)
    return Standing("signed", keys.names[trusted]) if trusted else Standing("stranger", fingerprint(sound[0]))


def fingerprint(key: bytes) -> str:
    """Return the sha256 of a public key's raw bytes, as hex: the first 16 digits are shown."""
    return hashlib.sha256(key).hexdigest()[:16]


def _mismatch(statement: Statement, manifest: str, name: str, version: str) -> str:
    if (statement.name, statement.version) != (name, version):
        return f"it was made for {statement.name[:63]}:{statement.version[:63]}"
    return "" if statement.manifest == manifest else f"{MANIFEST} was changed after it was signed"


def _payload(manifest: Path, name: str, version: str) -> bytes:
    statement = Statement(name=name, version=version, manifest=hash_file(manifest))
    return json.dumps(statement.model_dump(), sort_keys=True).encode()


def _signed_bytes(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _verified(mark: _Mark, signed: bytes) -> bytes | None:
    """Return the public key of a signature that holds, else None."""
    primitives = _ed25519()
    from cryptography.exceptions import InvalidSignature

    raw = _decode(mark.key)
    try:
        primitives.Ed25519PublicKey.from_public_bytes(raw).verify(_decode(mark.sig), signed)
    except InvalidSignature:
        return None
    return raw


def _read(file: Path) -> _Envelope:
    return _parse(file.read_bytes())


def _parse(content: bytes) -> _Envelope:
    if len(content) > LARGEST:
        raise ValueError("too large")
    return _Envelope.model_validate_json(content)


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from None


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise UnavailableError("signatures need the cryptography package", "pip install 'hone[ops]'") from None
    return ed25519


def _raw(key: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    raw: bytes = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return raw


def _public_key(file: Path) -> bytes:
    ed25519 = _ed25519()
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_public_key(file.read_bytes())
    except OSError as error:
        raise HoneError(f"{file}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise HoneError(f"{file}: no public key in PEM; make one with: openssl pkey -in KEY.pem -pubout") from None
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise HoneError(f"{file}: not an Ed25519 key; make one with: openssl genpkey -algorithm ed25519")
    return _raw(key)


def _private_key(file: Path, password: Callable[[], str]) -> Ed25519PrivateKey:
    ed25519 = _ed25519()
    from cryptography.hazmat.primitives import serialization

    try:
        content = file.read_bytes()
        try:
            key = serialization.load_pem_private_key(content, None)
        except TypeError:  # it is encrypted
            key = serialization.load_pem_private_key(content, password().encode())
    except OSError as error:
        raise HoneError(f"{file}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise HoneError(f"{file}: no private key in PEM, or not this password") from None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise HoneError(f"{file}: not an Ed25519 key; make one with: openssl genpkey -algorithm ed25519")
    return key
