"""Keys that sign artifacts: Ed25519, in PEM files that openssl makes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.errors import HoneError, UnavailableError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


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
        return cls({raw_bytes(read_public_key(file)): file.stem for file in files})

    def __bool__(self) -> bool:
        return bool(self.names)

    def describe(self) -> str:
        return ", ".join(sorted(set(self.names.values())))


def fingerprint(key: bytes) -> str:
    """Return the sha256 of a public key's raw bytes, as hex: the first 16 digits are shown."""
    return hashlib.sha256(key).hexdigest()[:16]


def raw_bytes(key: Ed25519PublicKey) -> bytes:
    """Return the 32 bytes that are the key."""
    from cryptography.hazmat.primitives import serialization

    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def read_public_key(file: Path) -> Ed25519PublicKey:
    """Return the public key in a PEM file; raises HoneError when there is none, or one of another kind."""
    kinds = ed25519()
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    problem = "no public key in PEM; make one with: openssl pkey -in KEY.pem -pubout"
    key: Ed25519PublicKey = _read(file, load_pem_public_key, kinds.Ed25519PublicKey, problem)
    return key


def read_private_key(file: Path, password: Callable[[], str]) -> Ed25519PrivateKey:
    """Return the private key in a PEM file; raises HoneError when there is none, or one of another kind.

    Args:
        file: to read.
        password: asked for when the key is encrypted.
    """
    kinds = ed25519()
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    def load(content: bytes) -> Any:
        try:
            return load_pem_private_key(content, None)
        except TypeError:  # it is encrypted
            return load_pem_private_key(content, password().encode())

    problem = "no private key in PEM, or not this password"
    key: Ed25519PrivateKey = _read(file, load, kinds.Ed25519PrivateKey, problem)
    return key


def _read(file: Path, load: Callable[[bytes], Any], kind: type, problem: str) -> Any:
    try:
        key = load(file.read_bytes())
    except OSError as error:
        raise HoneError(f"{file}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise HoneError(f"{file}: {problem}") from None
    if not isinstance(key, kind):
        raise HoneError(f"{file}: not an Ed25519 key; make one with: openssl genpkey -algorithm ed25519")
    return key


def ed25519() -> Any:
    """Return the part of the cryptography package that has the keys; raises UnavailableError when it isn't there."""
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise UnavailableError("signatures need the cryptography package", "pip install 'hone[ops]'") from None
    return ed25519
