"""Where a service may listen: on loopback freely, anywhere else only with keys or on the operator's word."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

from hone.errors import HoneError

from ..settings import Settings


def default_host(settings: Settings) -> str:
    """Return the address to listen on when none is given: everywhere with keys, on loopback without."""
    return "0.0.0.0" if settings.secured or settings.insecure else "127.0.0.1"  # callers show keys  # nosec B104


def grpc_host(settings: Settings, arguments: Sequence[str]) -> str:
    """Return the address to listen on for gRPC: the one of HTTP, whether it was given or not.

    Args:
        settings: of the service.
        arguments: as of check_exposure.
    """
    host = _given_host(arguments)
    if host:
        return host.strip("[]")
    # A Unix socket is for this machine only.
    return "127.0.0.1" if option(arguments, "--fd").isdigit() else default_host(settings)


def check_exposure(settings: Settings, arguments: Sequence[str]) -> None:
    """Refuse to serve an address that others can reach without keys.

    Args:
        settings: of the service.
        arguments: the command line of `bentoml serve` (with --host) or of its worker (with --fd, an open socket).

    Raises:
        HoneError: the address is not loopback and there are no keys.
    """
    if settings.secured or settings.insecure:
        return
    host = _given_host(arguments)
    if host and not is_loopback(host):
        raise HoneError(
            f"refusing to serve {host} without keys: anybody who reaches it could call the model; make keys with "
            "`hone keys new` and set HONE_API_KEYS, listen on 127.0.0.1, or set HONE_INSECURE=1 (--insecure) when "
            "something in front of it checks callers"
        )


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address; a name counts when it is localhost."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost":
        return True
    try:
        found = ipaddress.ip_address(name)
        return (getattr(found, "ipv4_mapped", None) or found).is_loopback
    except ValueError:
        return False


def option(arguments: Sequence[str], name: str) -> str:
    """Return the value of an option of a command line, or an empty string."""
    for index, argument in enumerate(arguments):
        if argument == name and index + 1 < len(arguments):
            return arguments[index + 1]
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
    return ""


def _given_host(arguments: Sequence[str]) -> str:
    handle = option(arguments, "--fd")
    return _listening_host(int(handle)) if handle.isdigit() else option(arguments, "--host")


def _listening_host(handle: int) -> str:
    with socket.socket(fileno=socket.dup(handle)) as copy:
        name = copy.getsockname()
    return str(name[0]) if isinstance(name, tuple) else ""
