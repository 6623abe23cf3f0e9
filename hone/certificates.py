"""Whom a TLS connection trusts."""

from __future__ import annotations

import ssl
from pathlib import Path

from hone.errors import HoneError, one_line


def trusting(ca: Path | None) -> ssl.SSLContext:
    """Return what TLS connections are made with.

    Args:
        ca: file of the certificates that a server's is checked with; None: those that Python knows.

    Raises:
        HoneError: the file holds no certificates.
    """
    try:
        return ssl.create_default_context(cafile=None if ca is None else str(ca))
    except OSError as error:
        raise HoneError(f"--ca {ca}: no certificates: {error.strerror or one_line(error)}") from None
