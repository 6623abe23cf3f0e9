"""Whom a TLS connection trusts, and what it shows of itself."""

from __future__ import annotations

import contextlib
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


NOT_YET, EXPIRED = 9, 10
"""X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED."""


def check_pair(certificate: str | None, key: str | None, password: str | None = None) -> None:
    """Check the files that a server shows itself with.

    Args:
        certificate: its file; None: there is to be no TLS.
        key: file of the key; None: it is in the certificate's.
        password: of the key; None: it has none.

    Raises:
        HoneError: one can't be read, there is a key alone, or they don't belong together.
    """
    if key and not certificate:
        raise HoneError("--ssl-keyfile needs --ssl-certfile, the certificate that the key belongs to")
    for file in filter(None, (certificate, key)):
        try:
            Path(file).read_bytes()
        except OSError as error:
            raise HoneError(f"{file}: can't be read: {error.strerror}") from None
    if not certificate:
        return
    try:
        _shown(certificate, key, password)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or "no certificate with its key"
        message = f"{certificate}: not usable with its key {key or certificate}: {reason.lower().replace('_', ' ')}"
        raise HoneError(message) from None


def check_in_time(certificate: str, key: str | None) -> None:
    """Raise HoneError when a certificate, whose pair is checked, isn't valid today."""
    client, server = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), _shown(certificate, key, None)
    client.check_hostname = False
    # It vouches for itself, so that nothing is asked but its time.
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(certificate)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    caller, called = client.wrap_bio(back, there), server.wrap_bio(there, back, server_side=True)
    for _ in range(4):
        for end in (caller, called):
            try:
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()
            except ssl.SSLCertVerificationError as error:
                if error.verify_code not in (NOT_YET, EXPIRED):
                    return
                raise HoneError(f"{certificate}: {error.verify_message}; no caller would trust it") from None
            except ssl.SSLError:
                return


def _shown(certificate: str, key: str | None, password: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # A password that is asked for at the terminal would hold the start for ever.
    context.load_cert_chain(certificate, key or None, password=lambda: password or "")
    return context
