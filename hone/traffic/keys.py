"""The key that recorded traffic is encrypted with, and whom it stands for: subjects are kept as keyed hashes only."""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

from hone.errors import HoneError, UnavailableError, one_line
from hone.files import atomic_write, locked

VARIABLE = "HONE_RECORD_KEY_FILE"
KEY_BYTES = 32
NONCE_BYTES = 12
NAME = "hone"
"""Of the key, in the files that it opens."""
HASH_KEY_FILE = "hash.key"
HASH_KEY_LOCK = "hash.lock"


class LockedError(HoneError):
    """Something is encrypted, and no key, or another one, was given."""


@dataclass(frozen=True)
class RecordKey:
    """256 bits. AES-GCM seals what is written; the hashes of subjects are keyed with a secret that is derived of it.

    Attributes:
        secret: the key.
    """

    secret: bytes

    @cached_property
    def _cipher(self) -> Any:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self.secret)

    @property
    def hash_secret(self) -> bytes:
        """What hashes are keyed with: all replicas that have the key give a subject the same one."""
        return blake2b(b"subjects", digest_size=32, key=self.secret).digest()

    def seal(self, content: bytes, about: bytes = b"") -> bytes:
        """Return content encrypted, as base64; it opens only with the same `about`."""
        nonce = os.urandom(NONCE_BYTES)
        return base64.b64encode(nonce + self._cipher.encrypt(nonce, content, about))

    def open(self, sealed: bytes, about: bytes = b"") -> bytes:
        """Return what was sealed.

        Raises:
            LockedError: it was sealed with another key, or changed since.
        """
        from cryptography.exceptions import InvalidTag

        try:
            raw = base64.b64decode(sealed, validate=True)
            content: bytes = self._cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], about)
        except (InvalidTag, binascii.Error, ValueError):
            raise LockedError(f"encrypted with another key than that of {VARIABLE}, or changed since") from None
        return content


def read_key(file: Path | str | None) -> RecordKey | None:
    """Return the key in a file: 32 bytes, as they are, as 64 hexadecimal digits or as base64; None without a file.

    Raises:
        HoneError: it can't be read, or is no key.
        UnavailableError: cryptography isn't installed.
    """
    if not file:
        return None
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise HoneError(f"{file}: can't be read: {error.strerror or one_line(error)}") from None
    secret = next((raw for raw in _readings(content) if len(raw) == KEY_BYTES), None)
    if secret is None:
        raise HoneError(f"{file}: no key of {KEY_BYTES} bytes; make one: openssl rand -hex {KEY_BYTES} > {file}")
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise UnavailableError("cryptography is not installed", "pip install 'hone[ops]'") from None
    return RecordKey(secret)


def _readings(content: bytes) -> list[bytes]:
    found = [content]
    text = content.strip()
    for read in (bytes.fromhex, lambda text: base64.b64decode(text, validate=True)):
        try:
            found.append(read(text.decode("ascii")))
        except (ValueError, UnicodeDecodeError):
            continue
    return found


def hash_secret(folder: Path, key: RecordKey | None) -> bytes:
    """Return the secret of a folder's hashes: that of the key, or one that lies in the folder and is made when missing.

    Raises:
        HoneError: it can't be read or written.
    """
    if key is not None:
        return key.hash_secret
    file = folder / HASH_KEY_FILE
    try:
        with locked(folder / HASH_KEY_LOCK):
            if not file.exists():
                atomic_write(file, os.urandom(KEY_BYTES), mode=0o600)
            return file.read_bytes()
    except OSError as error:
        raise HoneError(f"{file}: {error.strerror or one_line(error)}; hashes need it") from None


def hashed(subject: bytes, secret: bytes) -> str:
    """Return 32 hexadecimal digits that stand for somebody, such as a caller by the value of a header."""
    return blake2b(subject, digest_size=16, key=secret).hexdigest()
