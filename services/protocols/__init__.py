"""Wire protocols: one file each, from a request's body to tensors and from tensors to an answer.

A file registers its protocols (`base.register`); it imports what not every server has inside the methods that need it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

from hone.artifact import Artifact

from .base import Endpoint, Protocol, registered

__all__ = ["Endpoint", "Protocol", "all_endpoints", "endpoints_of"]


@cache
def all_endpoints() -> Mapping[Endpoint, Mapping[bytes, type[Protocol]]]:
    """Return every endpoint and its protocols by the value of its header, importing the files of this folder.

    Raises:
        ValueError: an endpoint has no protocol for requests without its header.
    """
    for module in pkgutil.iter_modules(__path__):
        if module.name != "base":
            importlib.import_module(f"{__name__}.{module.name}")
    for endpoint, protocols in registered().items():
        if b"" not in protocols:
            raise ValueError(
                f"{endpoint.model}: no protocol is registered for requests without {endpoint.header.decode()}"
            )
    return registered()


def endpoints_of(artifact: Artifact) -> dict[Endpoint, dict[bytes, type[Protocol]]]:
    """Return the endpoints at which a model answers, and its protocols there."""
    found = {
        endpoint: {value: protocol for value, protocol in protocols.items() if protocol.serves(artifact)}
        for endpoint, protocols in all_endpoints().items()
    }
    return {endpoint: protocols for endpoint, protocols in found.items() if b"" in protocols}
