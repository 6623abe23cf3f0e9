"""Whom a load test calls: what a service says of itself, so that a report names what really answered."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from hone.certificates import trusting
from hone.errors import HoneError, did_you_mean, one_line
from hone.names import shown
from hone.plan import Plan
from hone.signature import BATCH, Signature, TensorSpec

from .wire import V2_TYPES

TIMEOUT_S = 10.0
MOST_BYTES = 64_000_000
"""Of an answer about a service."""
CACHE_LOOKS = re.compile(r"^hone_cache_total\{(.*)\} (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
DTYPES = {datatype: dtype for dtype, datatype in V2_TYPES.items()}


@dataclass(frozen=True)
class Access:
    """What a service asks of its callers.

    Attributes:
        api_key: sent as `x-api-key`; empty: none.
        ca: file of the certificates that the service's is checked with; None: those that Python knows.
        grpc: HOST:PORT of its gRPC; empty: what the service says.
    """

    api_key: str = ""
    ca: Path | None = None
    grpc: str = ""

    def __repr__(self) -> str:
        return f"Access(api_key={'***' if self.api_key else ''!r}, ca={self.ca})"

    @property
    def headers(self) -> dict[str, str]:
        return {"x-api-key": self.api_key} if self.api_key else {}

    def context(self) -> ssl.SSLContext:
        """Return what TLS connections are made with.

        Raises:
            HoneError: the file holds no certificates.
        """
        return trusting(self.ca)


@dataclass(frozen=True)
class Target:
    """One model of a running service.

    Attributes:
        url: of the service.
        access: to it.
        name, version: of the artifact that answers.
        digest: of its content, as the service says; None where it doesn't.
        plan: how it is run, as the service says; None where it doesn't, or not so that this Hone can read it.
        path: `/models/NAME`, with the version where one was asked for.
        signature: as its metadata has it; axes that vary have names.
        example: rows by input that the service shows in its documentation; empty where it shows none.
    """

    url: str
    access: Access
    name: str
    version: str
    digest: str | None
    path: str
    signature: Signature
    example: dict[str, list[Any]]
    plan: Plan | None = None

    @property
    def tag(self) -> str:
        return f"{self.name}:{self.version}"


def require_ready(url: str, access: Access) -> None:
    """Raise HoneError unless a service answers at an address, and is ready."""
    if not url.startswith(("http://", "https://")):
        raise HoneError(f"'{url}' is no address of a service; give one such as http://127.0.0.1:3000")
    _get(url, "/readyz", access)


def ask(url: str, access: Access, reference: str = "") -> Target:
    """Return what a service says of one of its models.

    Args:
        url: of the service.
        access: to it.
        reference: NAME, NAME:VARIANT or a full tag; empty: the model that the service lists first.

    Raises:
        HoneError: nothing answers, the key is refused, or the service doesn't serve that.
    """
    url = url.rstrip("/")
    require_ready(url, access)
    name, _, wanted = reference.partition(":")
    name = name or _first_model(url, access)
    path = f"/models/{name}"
    metadata = _metadata(url, access, path, name)
    versions = [str(version) for version in metadata.get("versions") or []]
    if wanted not in ("", "latest"):
        path += f"/versions/{_choose(url, name, wanted, versions)}"
        metadata = _metadata(url, access, path, name)
    exactly = metadata.get("parameters") or {}
    version = str(exactly.get("tag", "")).partition(":")[2] or _only(url, name, versions)
    digest = exactly.get("digest")
    signature, example = _signature(metadata), _example(url, access, name)
    return Target(url, access, name, version, digest, path, signature, example, _plan(metadata))


def grpc_address(target: Target) -> str:
    """Return where a service answers gRPC: grpc://HOST:PORT, or grpcs:// where its HTTP has TLS.

    Raises:
        HoneError: it says that it doesn't, or nothing answers.
    """
    place = urlsplit(target.url)
    scheme = "grpcs" if place.scheme == "https" else "grpc"
    if target.access.grpc:
        return f"{scheme}://{target.access.grpc}"
    port = _json(target.url, "/v2", target.access).get("grpc_port")
    if not port:
        raise HoneError(
            f"{target.url} has no gRPC port; start it with --grpc-port (HONE_GRPC_PORT), or give the address: "
            "--grpc-address HOST:PORT"
        )
    host = place.hostname or ""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def require_grpc(target: Target) -> None:
    """Raise HoneError unless something listens where the service answers gRPC."""
    address = grpc_address(target)
    place = urlsplit(address)
    try:
        if not place.hostname or not place.port:
            raise ValueError
        socket.create_connection((place.hostname, place.port), TIMEOUT_S).close()
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise HoneError(f"{address}: no gRPC service answers: {reason}; --grpc-address gives another one") from None
    except ValueError:
        raise HoneError(f"--grpc-address {target.access.grpc}: write HOST:PORT") from None


def _first_model(url: str, access: Access) -> str:
    names = _json(url, "/v1/models", access).get("models") or []
    if not names:
        raise HoneError(f"{url} serves no model")
    return str(names[0])


def _choose(url: str, name: str, wanted: str, versions: list[str]) -> str:
    """Return the version that a version, its variant or its beginning names: a version is VARIANT-RUN."""
    matches: list[str] = []
    for beginning in (f"{wanted}$", f"{wanted}-", wanted):
        matches = matches or [version for version in versions if f"{version}$".startswith(beginning)]
    if len(matches) == 1:
        return matches[0]
    served = ", ".join(f"{name}:{version}" for version in matches or versions)
    problem = "which is several of what it serves" if matches else "which it doesn't serve"
    raise HoneError(f"{url} was asked for {name}:{wanted}, {problem}; there is {served or 'nothing'}")


def _metadata(url: str, access: Access, path: str, name: str) -> dict[str, Any]:
    try:
        return _json(url, f"/v2{path}", access)
    except _StatusError as error:
        if error.status != 404:
            raise
        names = _json(url, "/v1/models", access).get("models") or []
        hint = did_you_mean(name, map(str, names)) if names else ""
        raise HoneError(f"{url} serves no model '{name}'{hint}") from None


def _only(url: str, name: str, versions: list[str]) -> str:
    """Return the version that answers, of a service whose metadata doesn't say which."""
    if len(versions) != 1:
        raise HoneError(f"{url} has several versions of {name} and doesn't say which answers; name one: {versions}")
    return versions[0]


def _plan(metadata: dict[str, Any]) -> Plan | None:
    if not metadata.get("plan"):
        return None
    try:
        return Plan.model_validate_json(json.dumps(metadata["plan"]))
    except ValidationError:
        return None


def _signature(metadata: dict[str, Any]) -> Signature:
    """Return the signature that V2 metadata tells: -1 is an axis that varies, the first one the batch."""
    try:
        inputs, outputs = (tuple(map(_tensor, metadata[side])) for side in ("inputs", "outputs"))
    except (KeyError, TypeError, ValueError) as error:
        raise HoneError(f"the service's metadata can't be read: {one_line(error)}") from None
    return Signature(inputs=inputs, outputs=outputs)


def _tensor(entry: dict[str, Any]) -> TensorSpec:
    axes = [size if size > 0 else BATCH if place == 0 else f"axis{place}" for place, size in enumerate(entry["shape"])]
    return TensorSpec(name=entry["name"], dtype=DTYPES[entry["datatype"]], shape=tuple(axes))


def _example(url: str, access: Access, name: str) -> dict[str, list[Any]]:
    """Return rows that the service shows in its documentation; none is no harm, they can be made up."""
    try:
        body = _json(url, "/docs.json", access)["paths"][f"/models/{name}/predict"]["post"]["requestBody"]
        inputs: dict[str, list[Any]] = body["content"]["application/json"]["example"]["inputs"]
    except (HoneError, KeyError, TypeError):
        return {}
    return inputs


def cache_looks(target: Target) -> dict[str, float] | None:
    """Return how often the service looked into its prediction cache for a model, by what it found.

    None where the service doesn't tell: its metrics are elsewhere, or not for this caller.
    """
    try:
        text = _get(target.url, "/metrics", target.access).decode()
    except (HoneError, ValueError):
        return None
    looks: dict[str, float] = {}
    for labels, value in CACHE_LOOKS.findall(text):
        fields = dict(LABEL.findall(labels))
        if fields.get("model") == target.name and fields.get("version", target.version) == target.version:
            looks[fields.get("result", "")] = looks.get(fields.get("result", ""), 0.0) + float(value)
    return looks


class _StatusError(HoneError):
    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def _json(url: str, path: str, access: Access) -> dict[str, Any]:
    try:
        content = json.loads(_get(url, path, access))
    except ValueError:
        raise HoneError(f"{url}{path}: the answer is not JSON; is this a model server?") from None
    if not isinstance(content, dict):
        raise HoneError(f"{url}{path}: the answer is no object; is this a model server?")
    return content


class _Stays(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it would take the key along, to whatever host the answer names."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _get(url: str, path: str, access: Access) -> bytes:
    request = urllib.request.Request(url + path, headers=access.headers)
    secure = [urllib.request.HTTPSHandler(context=access.context())] if url.startswith("https://") else []
    try:
        with urllib.request.build_opener(_Stays, *secure).open(request, timeout=TIMEOUT_S) as answer:
            content: bytes = answer.read(MOST_BYTES + 1)
    except urllib.error.HTTPError as error:
        raise _StatusError(f"{url}{path} answers {error.code}: {_meaning(error, access)}", error.code) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        hint = "give its authority's file: --ca" if isinstance(reason, ssl.SSLCertVerificationError) else (
            "'hone serve' starts one"
        )  # fmt: skip
        raise HoneError(f"{url}: no service answers: {reason}; {hint}") from None
    if len(content) > MOST_BYTES:
        raise HoneError(f"{url}{path}: the answer has more than {MOST_BYTES:,} bytes; is this a model server?")
    return content


def _meaning(error: urllib.error.HTTPError, access: Access) -> str:
    if error.code == 401:
        return "the key is refused" if access.api_key else "it wants a key; give one: HONE_BENCH_KEY, or --api-key"
    if error.code == 503:
        return "the service is not ready"
    if 300 <= error.code < 400:
        return f"it is elsewhere, at {shown(error.headers.get('location', ''))}; give that address if you trust it"
    try:
        return str(json.loads(error.read(MOST_BYTES))["error"])
    except (ValueError, KeyError, TypeError, OSError):
        return str(error.reason)
